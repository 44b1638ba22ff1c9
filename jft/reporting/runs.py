"""What the training of a model left in its workdir, where that lies on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jft.errors import UserError
from jft.reporting.collect import Model
from jft.runtime import workdir

PROBE = {
    **{"step": int, "task": str, "dataset": str, "relation": str, "n": int},
    **{"nll_change": int | float, "nll_change_stderr": int | float | None},
    **{"kl": int | float, "kl_stderr": int | float | None},
}


DRIFT = {"relative_norm": int | float | None}
WEIGHT = DRIFT | {"kind": str, "layer": int | None, "full_rank": int | None}


class Run(NamedTuple):
    """A training.

    Attributes:
      path: of its workdir.
      config: its `config.json`.
      steps: how long it was to be.
      drift: its `drift.json`, how far the weights went from the base's.
      probes: its `probes.jsonl`, by step and dataset.
      data: its `data_report.json`.
    """

    path: str
    config: dict
    steps: int | None
    drift: dict | None
    probes: list[dict]
    data: dict | None


def read(path: str) -> Run | None:
    """The run in a workdir; None for any other model, or where it is not on this machine."""
    folder = Path(path)
    if not workdir.is_workdir(folder):
        return None
    config = workdir.read_json(folder / workdir.CONFIG)
    probes = workdir.read_jsonl(folder / "probes.jsonl", PROBE)
    steps = (workdir.find_json(folder / "model.json") or {}).get("steps")
    return Run(path, config, steps, _drift(folder / "drift.json"), probes, data_report(folder))


def drift(runs: dict[str, Run], model: Model) -> dict | None:
    """The `drift.json` of a model's training, if the model is that training's end."""
    run = runs.get(model.path)
    return run.drift if run and run.steps == model.step else None


def distance(runs: dict[str, Run], model: Model) -> float | None:
    """Of all its weights from the base's, over the base's norm."""
    found = drift(runs, model)
    return found["all"]["relative_norm"] if found else None


def data_report(folder: Path) -> dict | None:
    """What the checks of the data said, in training or in an evaluation."""
    return workdir.find_json(folder / "data_report.json")


def _drift(file: Path) -> dict | None:
    found = workdir.find_json(file)
    try:
        if found:
            workdir.check(str(file), found, {"all": dict, "weights": list})
            workdir.check(str(file), found["all"], DRIFT)
            for weight in found["weights"]:
                workdir.check(str(file), weight, WEIGHT)
    except UserError:
        return None
    return found
