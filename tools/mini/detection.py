"""Paraphrase pairs: several ways to say one thing, and a twist that makes it another thing.

The twist swaps two fillers ("Anna paid Ben", "Ben paid Anna") or takes a sentence written to mean
something else in nearly the same words. Both labels draw their two wordings in one way, so that
word overlap says little.
"""

import random

from tools.mini import grammar

LABELS = ["yes", "no"]
DATASETS = ("village", "queries", "bulletins")


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
    material = grammar.read(f"detection_{dataset}")
    for frame in material.draw(rng, held_out):
        label = rng.choice(LABELS)
        first, second = _pair(material, frame, label, rng)
        yield [{"input_1": first, "input_2": second, "output": label}]
