"""Validation: rows that a run is judged by while it is trained, and that it does not learn.

They are sets of their own, or a share of the training sets. Which rows that share holds depends on
each row alone: it never moves, whatever is added, left out or put in another order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from jft import config as config_lib
from jft.data.draws import TrainingSet
from jft.data.prompting.prompter import PromptEncoder
from jft.data.rows.datasets import Dataset, Suite
from jft.errors import UserError
from jft.tasks import Example, Task


class ValidationSet(NamedTuple):
    """Rows to judge a run by.

    Attributes:
      of: the set that they are of, with what makes sequences of them.
      indices: of the rows, in an order that does not depend on the others.
    """

    of: TrainingSet
    indices: list[int]


def held_out(dataset: Dataset, usable: Sequence[int], data: config_lib.Data) -> list[int]:
    """Choose the rows of a training set that are held out; none without a share in `data.valid`.

    Args:
      dataset: the training set.
      usable: the indices to choose from.
      data: of the config.

    Raises:
      UserError: none or all of them are in the share, or it is no share.
    """
    share = _share(data.valid)
    if share is None:
        return []
    places = {i: _place(dataset.task, dataset.examples[i]) for i in usable}
    found = sorted((i for i, place in places.items() if place < share), key=places.__getitem__)
    if not 0 < len(found) < len(usable):
        raise UserError(
            f"data.valid={share:g}: holds out {len(found)} of {len(usable)} rows of "
            f"{dataset.source}; choose another share, or name a set"
        )
    return found


def validation_sets(
    source: Suite,
    sets: Sequence[TrainingSet],
    held: Sequence[list[int]],
    tokenizer: PromptEncoder,
) -> list[ValidationSet]:
    """Find the rows to judge a run by: those that were held out, or the sets of `data.valid`.

    Args:
      source: of the config.
      sets: the training sets; of the same task as a set they lend it their demonstrations.
      held: the rows of each that are held out.
      tokenizer: the model's.

    Raises:
      UserError: no such set.
    """
    if _share(source.data.valid) is not None:
        return [ValidationSet(of, rows) for of, rows in zip(sets, held, strict=True)]
    found = []
    for name in source.data.valid:
        dataset = source.test_set(name, "data.valid")
        alike = next((each for each in sets if each.dataset.task == dataset.task), None)
        of = alike or TrainingSet.of(source, dataset, tokenizer)
        usable = dataset.usable
        places = {i: _place(dataset.task, dataset.examples[i]) for i in usable}
        found.append(
            ValidationSet(of._replace(dataset=dataset), sorted(usable, key=places.__getitem__))
        )
    return found


def _share(valid: Sequence[str]) -> float | None:
    """Read a share; None where sets are named, or nothing is."""
    try:
        (share,) = map(float, valid)
    except ValueError:
        return None
    if not 0 < share < 1:
        raise UserError(f"data.valid={share:g}: a share is between 0 and 1; or name a set")
    return share


def _place(task: Task, example: Example) -> float:
    """Place an example in [0, 1) by its hash: the same for examples with the same inputs."""
    digest = hashlib.sha256(json.dumps(["valid", *task.inputs(example)]).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
