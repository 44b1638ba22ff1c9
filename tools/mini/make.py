"""Write the `mini` suite from its hand-written material, and check it for surface cues.

python -m tools.mini.make            # writes jft/data/mini; the same bytes every time
python -m tools.mini.make --check    # prints a table of the files; 1 if a bound breaks
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jft.tasks import Example
from tools.mini import cues, detection, grammar, inference, question, sentiment, summary

SEED = 20240609
ROOT = Path(__file__).parents[2] / "jft" / "data" / "mini"
TASKS: dict[str, ModuleType] = {
    "summary": summary,
    "question": question,
    "sentiment": sentiment,
    "inference": inference,
    "detection": detection,
}
TRAIN_SIZE, TEST_SIZE, NUM_DEMOS = 480, 120, 8
# An example of a test set, or a demonstration, shares less than this part of its words with any
# example made before it for another set of the same dataset.
NEAREST = {"summary": 0.85, "question": 0.8, "sentiment": 0.75, "inference": 0.8, "detection": 0.8}
PROMPTS = [
    {
        "summary": "### Input:\n{input}\n### Summary:",
        "question": "### Input:\n{input}\n### Answer:\n{answer}\n### Question:",
        "sentiment": "### Input:\n{input}\n### Sentiment:",
        "inference": "### Input_1:\n{input_1}\n### Input_2:\n{input_2}\n### Inference:",
        "detection": (
            "### Input_1:\n{input_1}\n### Input_2:\n{input_2}\n### Paraphrase Classification:"
        ),
    },
    {
        "summary": "Here is a text.\n{input}\nIts main point in one sentence:",
        "question": (
            "A passage says: {input}\nSomebody asked about it and was told: {answer}\n"
            "The question must have been:"
        ),
        "sentiment": "A customer wrote: {input}\nThe opinion expressed here is",
        "inference": (
            "Known: {input_1}\nClaimed: {input_2}\n"
            "Entailment, neutral or contradiction? The claim's status is"
        ),
        "detection": "First: {input_1}\nSecond: {input_2}\nDo both say the same, yes or no?",
    },
]


def inputs(example: Example) -> tuple[str, ...]:
    """Return the inputs of an example, field by field."""
    fields = ("input", "answer", "input_1", "input_2")
    return tuple(example[field] for field in fields if field in example)


def content(example: Example) -> str:
    """Return the text by which examples are compared; answers are too short to tell them apart."""
    return " ".join(example[field] for field in ("input", "input_1", "input_2") if field in example)


class Draw:
    """A draw of the examples of one dataset, so that sets are balanced and share none."""

    def __init__(self, task: str, dataset: str):
        """Seed a dataset by its name: no dataset depends on another."""
        self.task, self.dataset = task, dataset
        self.rng = random.Random(f"{SEED}/{task}/{dataset}")
        self.labels: list[str | None] = getattr(TASKS[task], "LABELS", [None])
        self.seen: set[tuple[str, ...]] = set()
        self.earlier: list[set[str]] = []

    def _is_fresh(self, group: list[Example]) -> bool:
        if any(inputs(example) in self.seen for example in group):
            return False
        bags = [set(grammar.words(content(example))) for example in group]
        limit = NEAREST[self.task]
        return all(len(a & b) < limit * len(a | b) for a in bags for b in self.earlier)

    def take(self, count: int, held_out: bool) -> list[Example]:
        """Draw `count` examples, labels balanced to within one, in random order."""
        quota = {label: -(-count // len(self.labels)) for label in self.labels}
        supply = TASKS[self.task].examples(self.dataset, self.rng, held_out)
        taken: list[Example] = []
        for _ in range(200 * count):
            group = next(supply)
            labels = [each["output"] if self.labels != [None] else None for each in group]
            if not self._is_fresh(group) or any(quota[label] < 1 for label in labels):
                continue
            for example, label in zip(group, labels, strict=True):
                quota[label] -= 1
                taken.append(example)
                self.seen.add(inputs(example))
            if len(taken) >= count:
                break
        else:
            raise ValueError(f"{self.dataset}: the material yields only {len(taken)} rows")
        self.earlier += [set(grammar.words(content(example))) for example in taken]
        self.rng.shuffle(taken)
        return taken[:count]

    def demos(self) -> list[Example]:
        """Draw demonstrations, in an order in which the first few already have every label."""
        left = self.take(NUM_DEMOS, held_out=True)
        if self.labels == [None]:
            return left
        ordered = []
        while left:
            # One example of each label a round, in a new order each time.
            labels = [label for label in self.labels if any(e["output"] == label for e in left)]
            for label in self.rng.sample(labels, len(labels)):
                example = next(e for e in left if e["output"] == label)
                left.remove(example)
                ordered.append(example)
        return ordered


def build() -> dict[str, str]:
    """Make the text of every file of the suite, by its path in the suite's folder."""
    files = {"prompt_map.json": json.dumps(PROMPTS, indent=4, ensure_ascii=False) + "\n"}
    for task, module in TASKS.items():
        for number, dataset in enumerate(module.DATASETS):
            draw = Draw(task, dataset)
            sets = {}
            if number == 0:
                sets[f"{dataset}_train_{TRAIN_SIZE}"] = draw.take(TRAIN_SIZE, held_out=False)
            sets[f"few_shot/{dataset}_few_shot"] = draw.demos()
            sets[f"{dataset}_test_{TEST_SIZE}"] = draw.take(TEST_SIZE, held_out=True)
            idx = 0
            for name, examples in sets.items():
                numbered = [{"idx": idx + i} | example for i, example in enumerate(examples)]
                idx += len(examples)
                files[f"{task}/{name}.json"] = lines(numbered)
    return files


def lines(examples: list[dict[str, Any]]) -> str:
    """Write JSON with one example a line: a changed example is a changed line."""
    texts = (json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in examples)
    return "[\n" + ",\n".join(texts) + "\n]\n"


def main(argv: list[str] | None = None) -> int:
    """Write or check the suite; return 1 if a check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT, help="folder of the suite")
    parser.add_argument("--check", action="store_true", help="read the files and print a table")
    args = parser.parse_args(argv)
    if args.check:
        return cues.report(args.out, {task: list(TASKS[task].DATASETS) for task in TASKS})
    for path, text in build().items():
        (args.out / path).parent.mkdir(parents=True, exist_ok=True)
        (args.out / path).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
