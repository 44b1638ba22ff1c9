"""Question examples: a context, an answer in it, and the question that it answers."""

from __future__ import annotations

import random
from collections.abc import Iterator

from jft.tasks import Example
from tools.mini import grammar

DATASETS = ("neighbours", "science", "posts")


def examples(dataset: str, rng: random.Random, held_out: bool) -> Iterator[list[Example]]:
    """Make endless examples of a dataset; `held_out` allows the frames that training never has."""
    material = grammar.read_material(f"question_{dataset}")
    formal = dataset != "posts"  # posts keep their lower case
    for frame in material.draw(rng, held_out):
        filler = grammar.Filler(material.slots, rng)
        context = filler.fill(grammar.texts(frame, "c")[0], formal)
        answer, _, question = rng.choice(grammar.texts(frame, "q")).partition(" => ")
        example = {"input": context, "answer": filler.fill(answer, sentence_case=False)}
        yield [example | {"output": filler.fill(question, formal)}]
