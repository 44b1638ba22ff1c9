"""What `rows.jsonl` and `cells.jsonl` hold, for all who read them."""

from __future__ import annotations

from typing import NamedTuple

GRID = {"task": str, "dataset": str, "shots": int, "prompt": int, "draw": int}
ROW = GRID | {
    "model": str,
    "index": int,
    "request_sha256": str,
    "output": str,
    "prediction": str,
}
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
    "train_seed": int | None,
    "adapters": str,
    "train_examples": int | None,
    "recipe": str | None,
    "plain_recipe": str | None,
    "base": str,
    "base_sha256": str | None,
    "model_path": str,
    "step": int,
    "model_sha256": str,
    "rows_sha256": str,
    "prompt_sha256": str,
    "bos": bool,
    "sequence_tokens": int,
    "row_tokens": int,
    "shortened": int,
    "demos_among_items": int,
    "items_trained_on": int | None,
}


class Key(NamedTuple):
    """What a cell is of."""

    task: str
    dataset: str
    shots: int
    prompt: int
    draw: int

    def __str__(self) -> str:
        """As messages name it."""
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{self.task}/{self.dataset} at {self.shots} shots, prompt {self.prompt}{draw}"


def key(record: dict) -> Key:
    """The cell that a record is of."""
    return Key(*(record[field] for field in GRID))
