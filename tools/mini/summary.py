"""Summary examples: short articles with their main point in the middle, and one sentence for it.

The first sentence of an article sets a scene and does not summarize it. The summary says the main
point (k) in other words, so that no sentence can simply be copied.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from jft.tasks import Example
from tools.mini import grammar

DATASETS = ("town", "abstracts", "memos")


def _article(frame: grammar.Frame, rng: random.Random) -> list[str]:
    """Choose the sentences of one article: scene, main point, and some of the details."""
    if grammar.texts(frame, "b"):
        # An abstract: background, method, main point, and a detail or an end.
        kept = set("bmkde") - {rng.choice("de")}
        return [text for tag, text in sorted(frame, key=_order) if tag in kept]
    details = grammar.texts(frame, "d")
    chosen = rng.sample(details, min(len(details), rng.choice([1, 2])))
    return [*grammar.texts(frame, "l"), *grammar.texts(frame, "k"), *chosen]


def _order(line: tuple[str, str]) -> int:
    return "bmkdes".index(line[0])


def examples(dataset: str, rng: random.Random, held_out: bool) -> Iterator[list[Example]]:
    """Make endless examples of a dataset; `held_out` allows the frames that training never has."""
    material = grammar.read_material(f"summary_{dataset}")
    for frame in material.draw(rng, held_out):
        filler = grammar.Filler(material.slots, rng)
        article = filler.fill(" ".join(_article(frame, rng)))
        summary = filler.fill(rng.choice(grammar.texts(frame, "s")))
        yield [{"input": article, "output": summary}]
