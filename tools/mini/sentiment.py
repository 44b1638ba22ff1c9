"""Sentiment examples: reviews whose verdict decides, with facts that speak for and against it.

A list of words must not be enough: most verdicts come in pairs that differ in one small word, and
the word that makes one pair positive makes another negative ("the bad reviews are wrong", "the good
reviews are wrong").
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from jft.tasks import Example
from tools.mini import grammar

FIRST_PERSON = re.compile(r"\b(I|me|my)\b")
LABELS = ["positive", "negative"]
DATASETS = ("gadgets", "films", "hotels")


def _pair(text: str) -> list[str]:
    return text.split(" / ")


def _review(material: grammar.Material, held_out: bool, side: int, rng: random.Random) -> str:
    """Make a review of facts and a verdict; `side` is 0 for positive, 1 for negative."""
    products = [frame for frame in material.frames if frame[0][0] == "p"]
    every = [line for frame in material.frames for line in frame]
    product = rng.choice(products)
    verdict = _pair(rng.choice(grammar.texts(every, "v")))
    shapes = [(tag, text) for tag, text in every if tag in ("s", "t")]
    # The last shapes are kept for the test set, so that some of its shapes are unseen.
    told, shape = rng.choice(shapes if held_out else shapes[: len(shapes) - len(shapes) // 6])
    lines = grammar.texts(product, "f")
    if told == "t":
        # Hearsay is not in the first person: "Some owners write that my head hurts".
        lines = [line for line in lines if not FIRST_PERSON.search(line)]
    facts = [_pair(line) for line in rng.sample(lines, min(3, len(lines)))]
    parts = {
        "p": rng.choice(grammar.texts(product, "p")),
        "f": facts[0][side],
        "f2": facts[1 % len(facts)][side],
        "o": facts[-1][1 - side],
        "c": facts[-1][side],
        "v": verdict[side],
    }
    for key, value in parts.items():
        shape = shape.replace("{" + key + "}", value)
    return grammar.Filler(material.slots, rng).fill(shape)


def _short_review(material: grammar.Material, number: int, side: int, rng: random.Random) -> str:
    """Take one of the two sentences of a frame, and punctuate it as critics do."""
    lines = [text for frame in material.frames for text in grammar.texts(frame, "r")]
    text = _pair(lines[number % len(lines)])[side]
    text = grammar.Filler(material.slots, rng).fill(text)
    return text if text[-1] in "?!" else text + rng.choice([".", ".", "!"])


def examples(dataset: str, rng: random.Random, held_out: bool) -> Iterator[list[Example]]:
    """Make endless examples of a dataset; `held_out` allows the shapes that training never has."""
    material = grammar.read_material(f"sentiment_{dataset}")
    number = 0
    while True:
        side = number % 2
        if grammar.texts(material.frames[0], "r"):
            text = _short_review(material, number // 2, side, rng)
        else:
            text = _review(material, held_out, side, rng)
        yield [{"input": text, "output": LABELS[side]}]
        number += 1
