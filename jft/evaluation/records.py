"""What `rows.jsonl` and `cells.jsonl` hold, for all who read them."""

from __future__ import annotations

GRID = {"task": str, "dataset": str, "shots": int, "prompt": int}
ROW = GRID | {"model": str, "index": int, "output": str}
CELL = GRID | {
    "model": str,
    "relation": str,
    "metric": str,
    "value": int | float,
    "stderr": int | float | None,
    "n": int,
    "skipped": int,
    "train": str | None,
    "train_task": str | None,
    "train_shots": int | None,
    "base": str,
    "model_path": str,
    "step": int,
}

Key = tuple[str, str, int, int]


def key(record: dict) -> Key:
    """The cell that a record is of."""
    return (record["task"], record["dataset"], record["shots"], record["prompt"])
