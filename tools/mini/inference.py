"""Inference triples: one hypothesis, and three premises that entail, leave open or contradict it.

A triple stays whole within one set, so that each hypothesis occurs once with every label and says
nothing by itself. The second hypothesis of a frame denies the first, so that premises that entail
the one contradict the other: a premise says little by itself either.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from jft.tasks import Example
from tools.mini import grammar

LABELS = ["entailment", "neutral", "contradiction"]
DATASETS = ("errands", "texts", "minutes")
# Tags of the premises with these labels, for a hypothesis (h) and for its denial (d).
PREMISES = {"h": "enc", "d": "cne"}


def _triple(
    dataset: str, material: grammar.Material, frame: grammar.Frame, rng: random.Random
) -> Iterator[Example]:
    filler = grammar.Filler(material.slots, rng)
    kind = rng.choice("hd")
    hypothesis = filler.fill(grammar.texts(frame, kind)[0])
    for label, tag in zip(LABELS, PREMISES[kind], strict=True):
        # Text messages keep their lower case.
        premise = filler.fill(rng.choice(grammar.texts(frame, tag)), dataset != "texts")
        yield {"input_1": premise, "input_2": hypothesis, "output": label}


def examples(dataset: str, rng: random.Random, held_out: bool) -> Iterator[list[Example]]:
    """Make endless triples of a dataset; `held_out` allows the frames that training never has."""
    material = grammar.read_material(f"inference_{dataset}")
    for frame in material.draw(rng, held_out):
        yield list(_triple(dataset, material, frame, rng))
