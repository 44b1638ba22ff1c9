"""Paraphrase pairs: several ways to say one thing, and a twist that makes it another thing.

The twist swaps two fillers ("Anna paid Ben", "Ben paid Anna") or takes a sentence written to mean
something else in nearly the same words. Both labels draw their two wordings in one way, so that
word overlap says little.
"""

import random

from jft.data.mini_material import (
    detection_bulletins,
    detection_queries,
    detection_village,
    grammar,
)

LABELS = ["yes", "no"]
MATERIAL = {
    "village": detection_village.TEXT,
    "queries": detection_queries.TEXT,
    "bulletins": detection_bulletins.TEXT,
}


def _pair(material, frame, label, rng):
    """Two sentences of one frame that mean the same ("yes") or not ("no")."""
    filler = grammar.Filler(material.slots, rng)
    same, other = grammar.texts(frame, "="), grammar.texts(frame, "!")
    foreign = grammar.texts(frame, "x")
    swap = grammar.texts(frame, "~")
    i, j = rng.sample(range(len(same)), 2)
    if other and rng.random() < 0.5:
        # The sentences tagged "!" agree with each other, those tagged "x" do not.
        same, other = other, same
    first = filler.fill(same[i])
    if label == "yes":
        return first, filler.fill(same[j])
    # The very same wording, twisted, would be told by its overlap; take it now and then only.
    wording = i if rng.random() < 0.2 else j
    if other or foreign:
        return first, filler.fill((other or foreign)[wording])
    return first, filler.swapped(*swap[0].split()).fill(same[wording])


def rows(dataset: str, rng: random.Random, held_out: bool):
    """Endless rows of one data set; `held_out` allows the frames that training never shows."""
    material = grammar.parse(MATERIAL[dataset])
    frames = material.frames
    if not held_out:
        frames = [frame for i, frame in enumerate(frames) if i % 6 != 5]
    while True:
        for frame in rng.sample(frames, len(frames)):
            label = rng.choice(LABELS)
            first, second = _pair(material, frame, label, rng)
            yield [{"input_1": first, "input_2": second, "output": label}]
