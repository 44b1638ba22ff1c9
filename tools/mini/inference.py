"""Inference triples: one hypothesis, and three premises that entail, leave open or contradict it.

A triple stays whole within one data set, so that each hypothesis occurs once with every label and
says nothing by itself. A frame's second hypothesis denies the first, which turns its entailing
premises into contradicting ones: a premise says little by itself either.
"""

import random

from tools.mini import grammar

LABELS = ["entailment", "neutral", "contradiction"]
DATASETS = ("errands", "texts", "minutes")
# What the premises tagged e, n and c are to a hypothesis (h) and to its denial (d).
PREMISES = {"h": "enc", "d": "cne"}


def _triple(dataset, material, frame, rng):
    filler = grammar.Filler(material.slots, rng)
    kind = rng.choice("hd")
    hypothesis = filler.fill(grammar.texts(frame, kind)[0])
    for label, tag in zip(LABELS, PREMISES[kind], strict=True):
        # Text messages keep their lower case.
        premise = filler.fill(rng.choice(grammar.texts(frame, tag)), dataset != "texts")
        yield {"input_1": premise, "input_2": hypothesis, "output": label}


def rows(dataset: str, rng: random.Random, held_out: bool):
    """Endless triples of one data set; `held_out` allows the frames that training never shows."""
    material = grammar.read(f"inference_{dataset}")
    for frame in material.draw(rng, held_out):
        yield list(_triple(dataset, material, frame, rng))
