"""What a reader of the numbers should beware of: what is missing, skipped, or not the same."""

from __future__ import annotations

import json
import shlex
from collections import Counter

from jft.reporting.collect import Cell, Key, Model

CONSTANT = 0.95
# What of the data's config makes the base's scores those of the same items.
DATA_KEYS = ("root", "task", "demos", "fields", "labels", "template")


def missing(model: Model, bases: list[Model]) -> list[str]:
    """The cells that the base lacks, and the evaluation that would supply them.

    Args:
      model: the tuned model.
      bases: the evaluations of its base.
    """
    known = {key for base in bases for key in base.cells}
    keys = sorted(key for key in model.cells if key not in known)
    if not keys:
        return []
    what = (
        f"its base {model.base} lacks {len(keys)} of its {len(model.cells)} cells"
        if bases
        else f"no evaluation of its base {model.base} is among the folders given"
    )
    command = _evaluation(model, keys)
    return [f"{model.name}: {what}. To compare them, run `{command}` and add its folder."]


def unequal(model: Model, name: str | None, reference: dict[Key, Cell]) -> list[str]:
    """The cells in which a model and the one named were scored on different items."""
    notes = []
    for key, cell in sorted(model.cells.items()):
        other = reference.get(key)
        if other and cell.items.keys() != other.items.keys():
            common = len(cell.items.keys() & other.items.keys())
            notes.append(
                f"{key}: {model.name} was scored on {cell.n} items and {name} on {other.n}; "
                f"the {common} that both have are compared."
            )
    return notes


def cautions(models: list[Model]) -> list[str]:
    """What the evaluations counted that bears on the numbers, once for each dataset."""
    cells = [cell for model in models for cell in model.cells.values()]
    skipped = {(c.key.task, c.key.dataset): c.skipped for c in cells if c.skipped}
    notes = [
        f"{task}/{dataset}: {count} rows without a gold label were skipped."
        for (task, dataset), count in sorted(skipped.items())
    ]
    for field, text in (
        ("demos_among_items", "test items are among their own demonstrations"),
        ("shortened", "inputs were shortened to fit data.max_length"),
    ):
        counts: dict[tuple, int] = {}
        for cell in cells:
            place = cell.key[:3]
            counts[place] = max(counts.get(place, 0), cell.cautions[field])
        notes += [
            f"{task}/{dataset} at {shots} shots: {count} {text}."
            for (task, dataset, shots), count in sorted(counts.items())
            if count
        ]
    return notes + _trained_on(models) + _constant(models)


def _trained_on(models: list[Model]) -> list[str]:
    """Where a model has seen the answers in training."""
    notes = []
    for model in models:
        counts: dict[tuple[str, str], int] = {}
        for key, cell in sorted(model.cells.items()):
            place = (key.task, key.dataset)
            counts[place] = max(counts.get(place, 0), cell.cautions["items_trained_on"])
        notes += [
            f"{task}/{dataset}: {model.name} was trained on {count} of the test items, so that its "
            "value tells in part what it memorized."
            for (task, dataset), count in counts.items()
            if count
        ]
    return notes


def _constant(models: list[Model]) -> list[str]:
    """Where a model says one label whatever the item: its accuracy is that label's share then."""
    notes = []
    for model in models:
        found: dict[tuple[str, str, str], set[int]] = {}
        for key, cell in sorted(model.cells.items()):
            if cell.metric == "accuracy" and len({item.gold for item in cell.items.values()}) > 1:
                label, count = Counter(i.prediction for i in cell.items.values()).most_common(1)[0]
                if count >= CONSTANT * cell.n:
                    found.setdefault((key.task, key.dataset, label), set()).add(key.shots)
        places = [
            f"{task}/{dataset} ({label} at {_numbers(shots, ', ')} shots)"
            for (task, dataset, label), shots in found.items()
        ]
        if places:
            notes.append(
                f"{model.name} gives one label to nearly every item of {', '.join(places)}: its "
                "accuracy there is that label's share of the items, whatever it knows."
            )
    return notes


def _evaluation(model: Model, keys: list[Key]) -> str:
    config = json.loads(next(filter(None, model.configs.values()), "{}"))
    data, grid = config.get("data", {}), config.get("eval", {})
    # As they were given, since a name alone does not find a file again.
    datasets = grid.get("datasets") or sorted({f"{key.task}/{key.dataset}" for key in keys})
    of_data = [f"--config.data.{name}={_text(data[name])}" for name in DATA_KEYS if data.get(name)]
    limit = [f"--config.eval.limit={grid['limit']}"] if "limit" in grid else []
    return shlex.join(
        [
            *("python", "-m", "jft.eval", "--config=configs/evaluate.py"),
            f"--config.model.path={model.base}",
            *of_data,
            f"--config.eval.datasets={','.join(datasets)}",
            f"--config.eval.shots={_numbers({key.shots for key in keys})}",
            f"--config.eval.prompts={_numbers({key.prompt for key in keys})}",
            *limit,
            "--workdir=NEW",
        ]
    )


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else repr(tuple(value))


def _numbers(numbers: set[int], joint: str = ",") -> str:
    return joint.join(map(str, sorted(numbers)))
