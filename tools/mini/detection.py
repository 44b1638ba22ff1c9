"""Paraphrase pairs: two wordings of one meaning, or of two meanings that differ by a twist.

The twist swaps two fillers ("Anna paid Ben", "Ben paid Anna"), or takes a sentence that was written
to mean something else in nearly the same words. Wordings are drawn in the same way for both labels,
so that word overlap says little.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from jft.tasks import Example
from tools.mini import grammar

LABELS = ["yes", "no"]
DATASETS = ("village", "queries", "bulletins")


def _pair(
    material: grammar.Material, frame: grammar.Frame, label: str, rng: random.Random
) -> tuple[str, str]:
    """Make two sentences of one frame that mean the same ("yes") or do not ("no")."""
    filler = grammar.Filler(material.slots, rng)
    same, other = grammar.texts(frame, "="), grammar.texts(frame, "!")
    foreign = grammar.texts(frame, "x")
    swap = grammar.texts(frame, "~")
    i, j = rng.sample(range(len(same)), 2)
    if other and rng.random() < 0.5:
        # The sentences tagged "!" agree with each other; those tagged "x" do not.
        same, other = other, same
    first = filler.fill(same[i])
    if label == "yes":
        return first, filler.fill(same[j])
    # The same wording, twisted, has the most overlap of all: only now and then is it taken.
    wording = i if rng.random() < 0.2 else j
    if other or foreign:
        return first, filler.fill((other or foreign)[wording])
    return first, filler.swapped(*swap[0].split()).fill(same[wording])


def examples(dataset: str, rng: random.Random, held_out: bool) -> Iterator[list[Example]]:
    """Make endless examples of a dataset; `held_out` allows the frames that training never has."""
    material = grammar.read_material(f"detection_{dataset}")
    for frame in material.draw(rng, held_out):
        label = rng.choice(LABELS)
        first, second = _pair(material, frame, label, rng)
        yield [{"input_1": first, "input_2": second, "output": label}]
