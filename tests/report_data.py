"""Workdirs of small, made-up evaluations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from jft.runtime import records
from jft.tasks import TASKS, relation

DATASETS = (
    ("sentiment", "gadgets"),
    ("sentiment", "films"),
    ("sentiment", "trips"),
    ("detection", "paraphrases"),
    ("inference", "notices"),
)
# The chance of a right answer by relation.
BASE = {"base": 0.6}
FT = {"in-domain": 0.92, "out-of-domain": 0.7, "out-of-task": 0.52}
FTICL = {"in-domain": 0.88, "out-of-domain": 0.78, "out-of-task": 0.6}


def write_evaluation(
    folder: Path,
    name: str,
    skill: dict[str, float],
    *,
    model_path: str | None = None,
    base: str = "/models/base",
    train: str | None = None,
    train_shots: int | None = None,
    train_seed: int = 0,
    adapters: str = "",
    examples: int = 400,
    datasets=DATASETS,
    shots=(0, 2),
    prompts=(0, 1),
    n: int = 40,
    seed: int = 0,
) -> Path:
    """Write one model's rows, cells and config; half of each answer depends on the item alone."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows, cells = np.random.default_rng([seed, len(name)]), [], []
    model = {
        "model": name,
        "model_path": model_path or base,
        "step": 30 if train else 0,
        "model_sha256": model_path or base,
        "bos": False,
        "base": base,
        "base_sha256": base if train else None,
        "adapters": adapters,
        "train": train,
        "train_task": train and "sentiment",
        "train_shots": train_shots,
        "train_seed": train_seed if train else None,
        "train_examples": examples if train else None,
        "recipe": f"{train} {examples} {train_shots}" if train else None,
        "plain_recipe": f"{train} {examples}" if train else None,
    }
    inputs = {f"{of}_sha256": model_path or base for of in ("rows", "prompt")}
    inputs |= {"sequence_tokens": 9, "row_tokens": 9}
    for task, dataset in datasets:
        difficulty = np.random.default_rng(list(dataset.encode())).random(n)
        gold = np.random.default_rng(list(dataset.encode()[::-1])).integers(0, 9, n)
        labels = TASKS[task].labels
        related = relation([("sentiment", train.split("_")[0])] if train else None, (task, dataset))
        for shot in shots:
            for prompt in prompts:
                where = {"model": name, "task": task, "dataset": dataset}
                where |= {"shots": shot, "prompt": prompt, "draw": 0}
                right = 0.5 * difficulty + 0.5 * rng.random(n) < _quantile(skill[related])
                rows += [
                    where | _item(i, labels, int(gold[i]), bool(right[i]), rng) for i in range(n)
                ]
                cells.append(
                    where
                    | {"relation": related, "metric": "accuracy", "value": right.mean().item()}
                    | {"stderr": right.std(ddof=1).item() / math.sqrt(n), "n": n, "skipped": 0}
                    | {"shortened": 0, "demos_among_items": 0, "items_trained_on": None}
                    | inputs
                )
    records.append(folder, records.ROWS, rows)
    records.append(folder, records.CELLS, cells)
    records.write(folder, records.SCORED_MODEL, model)
    config = {"model": {"path": model["model_path"]}, "data": {"root": "mini"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_study(root: Path, **options) -> list[str]:
    """Write a base, FT and FTICL on the same training set; returns the three workdirs."""
    tuned = {"train": "gadgets_train_400", **options}
    write_evaluation(root / "base", "tiny", BASE, **options)
    write_evaluation(
        root / "ft", "FT gadgets_train_400", FT, model_path="/runs/ft", train_shots=0, **tuned
    )
    write_evaluation(
        root / "fticl",
        "FTICL-2 gadgets_train_400",
        FTICL,
        model_path="/runs/fticl",
        train_shots=2,
        **tuned,
    )
    return [str(root / name) for name in ("base", "ft", "fticl")]


def edit_model(folder: Path | str, **facts) -> None:
    """Change what an evaluation says of its model."""
    records.write(
        Path(folder), records.SCORED_MODEL, records.read_scored_model(Path(folder)) | facts
    )


def make_version_1(folder: Path | str) -> None:
    """Rewrite an evaluation as version 1 was: facts of the model on each line, no model.json."""
    folder = Path(folder)
    facts = records.read_scored_model(folder)
    for name, more in (("rows.jsonl", {}), ("cells.jsonl", facts)):
        old = [record | more for record in read_jsonl(folder / name)]
        write_jsonl(folder / name, [{k: v for k, v in x.items() if k != "version"} for x in old])
    (folder / "model.json").unlink()


def read_jsonl(path: Path) -> list[dict]:
    """Read the records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_jsonl(path: Path, records: list[dict]) -> None:
    """Write records, one a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _quantile(chance: float) -> float:
    """Find the value that the mean of two uniform variables stays below with this chance."""
    return math.sqrt(chance / 2) if chance <= 0.5 else 1 - math.sqrt((1 - chance) / 2)


def _item(index: int, labels, gold: int, right: bool, rng) -> dict:
    gold %= len(labels)
    scores = -rng.random(len(labels)) - 1
    predicted = gold if right else (gold + 1) % len(labels)
    scores[predicted] = -0.5
    return {
        "index": index,
        "request_sha256": f"item {index}",
        "output": labels[gold],
        "prediction": labels[predicted],
        "scores": dict(zip(labels, scores.tolist(), strict=True)),
        "correct": right,
    }
