"""Sentiment rows: reviews whose verdict decides, with facts that speak for and against it.

A wordlist must not do: most verdicts come in pairs that differ in one small word, and the word that
makes one pair positive makes another negative ("the bad reviews are wrong", "the good reviews are
wrong").
"""

import random
import re

from tools.mini import grammar

FIRST_PERSON = re.compile(r"\b(I|me|my)\b")
LABELS = ["positive", "negative"]
DATASETS = ("gadgets", "films", "hotels")


def _pair(text: str) -> list[str]:
    return text.split(" / ")


def _verdict_row(material, held_out, side, rng):
    """A review built of facts and a verdict; `side` is 0 for positive, 1 for negative."""
    products = [frame for frame in material.frames if frame[0][0] == "p"]
    every = [line for frame in material.frames for line in frame]
    product = rng.choice(products)
    verdict = _pair(rng.choice(grammar.texts(every, "v")))
    shapes = [(tag, text) for tag, text in every if tag in ("s", "t")]
    # The last shapes are kept for the test set, so that it also asks for unseen ones.
    told, shape = rng.choice(shapes if held_out else shapes[: len(shapes) - len(shapes) // 6])
    lines = grammar.texts(product, "f")
    if told == "t":
        # "Some owners write that my head hurts" would not do: hearsay is not in the first person.
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


def _short_row(material, number, side, rng):
    """One of the two sentences of a frame, with a little of the critics' punctuation."""
    lines = [text for frame in material.frames for text in grammar.texts(frame, "r")]
    text = _pair(lines[number % len(lines)])[side]
    text = grammar.Filler(material.slots, rng).fill(text)
    return text if text[-1] in "?!" else text + rng.choice([".", ".", "!"])


def rows(dataset: str, rng: random.Random, held_out: bool):
    """Endless rows of one data set; `held_out` allows the shapes that training never shows."""
    material = grammar.read(f"sentiment_{dataset}")
    number = 0
    while True:
        side = number % 2
        if grammar.texts(material.frames[0], "r"):
            text = _short_row(material, number // 2, side, rng)
        else:
            text = _verdict_row(material, held_out, side, rng)
        yield [{"input": text, "output": LABELS[side]}]
        number += 1
