"""Summary rows: short articles whose main point stands in the middle, with one sentence for it.

The first sentence of an article sets a scene and is no summary of it, and the summary says the main
point (k) in other words, so that no sentence can simply be copied.
"""

import random

from tools.mini import grammar

DATASETS = ("town", "abstracts", "memos")


def _article(frame, rng):
    """The sentences of one article: scene, main point, and some of the details."""
    if grammar.texts(frame, "b"):
        # An abstract: background, method, main point, and then a detail or an end.
        kept = set("bmkde") - {rng.choice("de")}
        return [text for tag, text in sorted(frame, key=_order) if tag in kept]
    details = grammar.texts(frame, "d")
    chosen = rng.sample(details, min(len(details), rng.choice([1, 2])))
    return [*grammar.texts(frame, "l"), *grammar.texts(frame, "k"), *chosen]


def _order(line):
    return "bmkdes".index(line[0])


def rows(dataset: str, rng: random.Random, held_out: bool):
    """Endless rows of one data set; `held_out` allows the frames that training never shows."""
    material = grammar.read(f"summary_{dataset}")
    for frame in material.draw(rng, held_out):
        filler = grammar.Filler(material.slots, rng)
        article = filler.fill(" ".join(_article(frame, rng)))
        summary = filler.fill(rng.choice(grammar.texts(frame, "s")))
        yield [{"input": article, "output": summary}]
