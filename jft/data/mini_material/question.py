"""Question rows: a context, an answer, and the question that the context answers with it."""

import random

from jft.data.mini_material import grammar, question_neighbours, question_posts, question_science

MATERIAL = {
    "neighbours": question_neighbours.TEXT,
    "science": question_science.TEXT,
    "posts": question_posts.TEXT,
}


def rows(dataset: str, rng: random.Random, held_out: bool):
    """Endless rows of one data set; `held_out` allows the frames that training never shows."""
    material = grammar.parse(MATERIAL[dataset])
    frames = material.frames
    if not held_out:
        frames = [frame for i, frame in enumerate(frames) if i % 6 != 5]
    # Posts keep their lower case.
    formal = dataset != "posts"
    while True:
        for frame in rng.sample(frames, len(frames)):
            filler = grammar.Filler(material.slots, rng)
            context = filler.fill(grammar.texts(frame, "c")[0], formal)
            answer, _, question = rng.choice(grammar.texts(frame, "q")).partition(" => ")
            yield [
                {
                    "input": context,
                    "answer": filler.fill(answer, sentence_case=False),
                    "output": filler.fill(question, formal),
                }
            ]
