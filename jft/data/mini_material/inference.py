"""Inference triples: one hypothesis, and three premises that entail, leave open or contradict it.

A triple stays whole within one data set, so that each hypothesis occurs once with every label and
says nothing by itself. A frame's second hypothesis denies the first, which turns its entailing
premises into contradicting ones: a premise says little by itself either.
"""

import random

from jft.data.mini_material import grammar, inference_errands, inference_minutes, inference_texts

LABELS = ["entailment", "neutral", "contradiction"]
MATERIAL = {
    "errands": inference_errands.TEXT,
    "texts": inference_texts.TEXT,
    "minutes": inference_minutes.TEXT,
}
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
    material = grammar.parse(MATERIAL[dataset])
    frames = material.frames
    if not held_out:
        frames = [frame for i, frame in enumerate(frames) if i % 6 != 5]
    while True:
        for frame in rng.sample(frames, len(frames)):
            yield list(_triple(dataset, material, frame, rng))
