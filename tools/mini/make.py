"""Writes the `mini` suite from its hand-written material, and checks it for surface cues.

python -m tools.mini.make            # writes jft/data/mini; the same bytes every time
python -m tools.mini.make --check    # prints a table of the files; 1 if a bound breaks
"""

import argparse
import json
import pathlib
import random
import sys

from tools.mini import cues, detection, grammar, inference, question, sentiment, summary

SEED = 20240609
ROOT = pathlib.Path(__file__).parents[2] / "jft" / "data" / "mini"
TASKS = {
    "summary": summary,
    "question": question,
    "sentiment": sentiment,
    "inference": inference,
    "detection": detection,
}
TRAIN_ROWS, TEST_ROWS, DEMO_ROWS = 480, 120, 8
# A row of a test or demo set may share at most this part of its words with a row made before it
# for another set of the same dataset.
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


def inputs(row: dict) -> tuple[str, ...]:
    """What a model reads of a row, field by field."""
    return tuple(row[key] for key in ("input", "answer", "input_1", "input_2") if key in row)


def content(row: dict) -> str:
    """The text by which two rows are compared; answers are too short to tell rows apart."""
    return " ".join(row[key] for key in ("input", "input_1", "input_2") if key in row)


class Draw:
    """Takes rows from an endless supply so that sets are balanced and share no row."""

    def __init__(self, task: str, dataset: str):
        """Seeds one dataset by its name: no dataset depends on another."""
        self.task, self.dataset = task, dataset
        self.rng = random.Random(f"{SEED}/{task}/{dataset}")
        self.labels = getattr(TASKS[task], "LABELS", [None])
        self.seen: set[tuple[str, ...]] = set()
        self.earlier: list[set[str]] = []

    def _fresh(self, group: list[dict]) -> bool:
        if any(inputs(row) in self.seen for row in group):
            return False
        bags = [set(grammar.words(content(row))) for row in group]
        limit = NEAREST[self.task]
        return all(len(a & b) < limit * len(a | b) for a in bags for b in self.earlier)

    def take(self, count: int, held_out: bool) -> list[dict]:
        """`count` rows, labels balanced to within one, in random order."""
        quota = {label: -(-count // len(self.labels)) for label in self.labels}
        supply = TASKS[self.task].rows(self.dataset, self.rng, held_out)
        taken = []
        for _ in range(200 * count):
            group = next(supply)
            labels = [row["output"] if self.labels != [None] else None for row in group]
            if not self._fresh(group) or any(quota[label] < 1 for label in labels):
                continue
            for row, label in zip(group, labels, strict=True):
                quota[label] -= 1
                taken.append(row)
                self.seen.add(inputs(row))
            if len(taken) >= count:
                break
        else:
            raise ValueError(f"{self.dataset}: the material yields only {len(taken)} rows")
        self.earlier += [set(grammar.words(content(row))) for row in taken]
        self.rng.shuffle(taken)
        return taken[:count]

    def demos(self) -> list[dict]:
        """Demonstrations ordered so that the first few already show every label."""
        rows = self.take(DEMO_ROWS, held_out=True)
        if self.labels == [None]:
            return rows
        ordered = []
        while rows:
            # One row of each label a round, in a new order each time.
            kinds = [label for label in self.labels if any(r["output"] == label for r in rows)]
            for label in self.rng.sample(kinds, len(kinds)):
                row = next(r for r in rows if r["output"] == label)
                rows.remove(row)
                ordered.append(row)
        return ordered


def build() -> dict[str, str]:
    """The text of every file of the suite, by its path in the suite's folder."""
    files = {"prompt_map.json": json.dumps(PROMPTS, indent=4, ensure_ascii=False) + "\n"}
    for task, module in TASKS.items():
        for number, dataset in enumerate(module.DATASETS):
            draw = Draw(task, dataset)
            sets = {}
            if number == 0:
                sets[f"{dataset}_train_{TRAIN_ROWS}"] = draw.take(TRAIN_ROWS, held_out=False)
            sets[f"few_shot/{dataset}_few_shot"] = draw.demos()
            sets[f"{dataset}_test_{TEST_ROWS}"] = draw.take(TEST_ROWS, held_out=True)
            idx = 0
            for name, rows in sets.items():
                numbered = [{"idx": idx + i} | row for i, row in enumerate(rows)]
                idx += len(rows)
                files[f"{task}/{name}.json"] = lines(numbered)
    return files


def lines(rows: list[dict]) -> str:
    """JSON with one row a line: small, and a changed row is a changed line."""
    texts = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    return "[\n" + ",\n".join(texts) + "\n]\n"


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the suite; the exit status is 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT, help="folder of the suite")
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
