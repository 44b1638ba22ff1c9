"""The inputs of test items, which results leave out: read again from where they came."""

from __future__ import annotations

import json
from collections.abc import Iterable

from jft import config as config_lib
from jft.data import eval_grid
from jft.data.datasets import Dataset
from jft.errors import UserError
from jft.reporting.models import ScoredModel
from jft.reporting.pairs import ChangedItem

# Characters of an input that a table of examples shows.
LONGEST = 300


class InputTexts:
    """Looks up the inputs of items; none for data that is not on this machine any more."""

    def __init__(self, models: Iterable[ScoredModel]):
        self._datasets: dict[tuple[str, str], Dataset] = {}
        configs = {each.config for model in models for each in model.evaluations.values()}
        for config in filter(None, configs):
            for dataset in _datasets(config):
                self._datasets[dataset.task.name, dataset.name] = dataset

    def of(self, example: ChangedItem) -> str:
        """What the model was given, shortened: the fields of the row, one a line."""
        dataset = self._datasets.get((example.key.task, example.key.dataset))
        if dataset is None or example.item_index >= len(dataset.examples):
            return ""
        row = dataset.examples[example.item_index]
        if row["output"] != example.base.gold:
            return ""  # the data has changed since
        return "\n".join(_shorten(row[name]) for name in dataset.task.fields)


def _datasets(config: str):
    try:
        return eval_grid.datasets(config_lib.from_dict(json.loads(config)))
    except (UserError, AttributeError, TypeError):
        return []


def _shorten(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
