"""Question rows: a context, an answer, and the question that the context answers with it."""

import random

from tools.mini import grammar

DATASETS = ("neighbours", "science", "posts")


def rows(dataset: str, rng: random.Random, held_out: bool):
    """Endless rows of one data set; `held_out` allows the frames that training never shows."""
    material = grammar.read(f"question_{dataset}")
    formal = dataset != "posts"  # posts keep their lower case
    for frame in material.draw(rng, held_out):
        filler = grammar.Filler(material.slots, rng)
        context = filler.fill(grammar.texts(frame, "c")[0], formal)
        answer, _, question = rng.choice(grammar.texts(frame, "q")).partition(" => ")
        row = {"input": context, "answer": filler.fill(answer, sentence_case=False)}
        yield [row | {"output": filler.fill(question, formal)}]
