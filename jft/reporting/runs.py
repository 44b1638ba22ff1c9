"""What the training of a model left in its workdir, where that lies on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jft import workdir
from jft.errors import UserError

PROBE = {"step": int, "task": str, "dataset": str, "relation": str, "n": int, "nll": int | float}


class Run(NamedTuple):
    """A training.

    Attributes:
      path: of its workdir.
      config: its `config.json`.
      drift: its `drift.json`, how far the weights went from the base's.
      probes: its `probes.jsonl`, by step and data set.
      data: its `data_report.json`.
    """

    path: str
    config: dict
    drift: dict | None
    probes: list[dict]
    data: dict | None

    @property
    def distance(self) -> float | None:
        """Of all weights from the base's, over the base's norm."""
        return self.drift["all"]["relative_norm"] if self.drift else None


def read(path: str) -> Run | None:
    """The run in a workdir; None for any other model, or where it is not on this machine."""
    folder = Path(path)
    if not workdir.is_workdir(folder):
        return None
    config = workdir.read_json(folder / workdir.CONFIG)
    probes = workdir.read_jsonl(folder / "probes.jsonl", PROBE)
    return Run(path, config, _json(folder / "drift.json"), probes, data_report(folder))


def data_report(folder: Path) -> dict | None:
    """What the checks of the data said, in training or in an evaluation."""
    return _json(folder / "data_report.json")


def _json(file: Path) -> dict | None:
    try:
        return workdir.read_json(file) if file.exists() else None
    except UserError:
        return None  # the report can do without; the program that wrote it will say what is wrong
