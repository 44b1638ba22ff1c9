"""Summary rows: short articles whose main point stands in the middle, with one sentence for it.

The first sentence of an article sets a scene and is no summary of it, and the summary says the main
point (k) in other words, so that no sentence can simply be copied.
"""

import random

from jft.data.mini_material import grammar, summary_abstracts, summary_memos, summary_town

MATERIAL = {
    "town": summary_town.TEXT,
    "abstracts": summary_abstracts.TEXT,
    "memos": summary_memos.TEXT,
}


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
    material = grammar.parse(MATERIAL[dataset])
    frames = material.frames
    if not held_out:
        frames = [frame for i, frame in enumerate(frames) if i % 6 != 5]
    while True:
        for frame in rng.sample(frames, len(frames)):
            filler = grammar.Filler(material.slots, rng)
            article = filler.fill(" ".join(_article(frame, rng)))
            summary = filler.fill(rng.choice(grammar.texts(frame, "s")))
            yield [{"input": article, "output": summary}]
