"""The items that a run is watched on: a few rows of several test sets, none of them trained on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jft import config as config_lib
from jft.batch import Batch, Shape
from jft.data import checks, datasets, packing, prefix_tree, trained_on
from jft.data import readers as rows_lib
from jft.data.datasets import Dataset, Suite
from jft.data.packing import Budget
from jft.data.prompts import Encoded, Encoder, Prompter, Request
from jft.errors import UserError
from jft.tasks import relation

# Positions of a gold answer at which the model's whole distribution is looked at.
KL_POSITIONS = 4
# Other test sets of the task that are watched when the config names none.
OTHER_SETS = 2


class ProbeSet(NamedTuple):
    """The items of one test set.

    Attributes:
      dataset: the whole test set.
      relation: to the training set.
      encoded: the sequences of each item: one for each label, or its gold answer alone.
      gold: which of its sequences is each item's gold answer.
    """

    dataset: Dataset
    relation: str
    encoded: list[Encoded]
    gold: list[int]


class ProbeBatch(NamedTuple):
    """Some rows of the items.

    Attributes:
      batch: all sequences of the rows.
      first_BP: the loss entries of the gold answers' first `KL_POSITIONS` tokens; 0 in padding.
      slots: for each row the (item, sequence) of its slots.
      owners: for each row the item of each of its entries in `first_BP`, padding left out.
    """

    batch: Batch
    first_BP: np.ndarray
    slots: list[list[tuple[int, int]]]
    owners: list[list[int]]


@dataclass(frozen=True, slots=True)
class ProbeItems:
    """The sets of a run, in the order of the results; items count through them."""

    sets: list[ProbeSet]

    @property
    def encoded(self) -> list[Encoded]:
        """The sequences of every item."""
        return [encoded for each in self.sets for encoded in each.encoded]

    @property
    def gold(self) -> list[int]:
        """Which of its sequences is each item's gold answer."""
        return [gold for each in self.sets for gold in each.gold]

    def sha256(self) -> str:
        """Of every token, and of what is the gold answer."""
        pairs = zip(self.encoded, self.gold, strict=True)
        return prefix_tree.sha256([encoded.sequences[gold] for encoded, gold in pairs])

    def packed(self, budget: Budget) -> tuple[list[list[tuple[int, int]]], Shape]:
        """Rows of all sets, as (item, sequence) pairs, and the shape of a batch of them."""
        pairs = [(i, j) for i, each in enumerate(self.encoded) for j in range(len(each.sequences))]
        encoded = self.encoded
        plan = packing.plan([[encoded[i].sequences[j] for i, j in pairs]], budget)
        return [[pairs[k] for k in row] for row in plan.rows[0]], plan.shapes[0]

    def batches(self, budget: Budget) -> Iterator[ProbeBatch]:
        """All rows in batches of one shape."""
        packed, (_, size, *sizes) = self.packed(budget)
        encoded, gold = self.encoded, self.gold
        first = [_first_entries(row, encoded, gold) for row in packed]
        width = max(map(len, first))
        for start in range(0, len(packed), size):
            part = slice(start, start + size)
            first_BP = np.zeros((size, width), np.int32)
            for b, places in enumerate(first[part]):
                first_BP[b, : len(places)] = [entry for entry, _ in places]
            rows = [[encoded[i].sequences[j] for i, j in row] for row in packed[part]]
            yield ProbeBatch(
                prefix_tree.build(rows, size, *sizes),
                first_BP,
                packed[part],
                [[item for _, item in places] for places in first[part]],
            )


def _first_entries(
    row: list[tuple[int, int]], encoded: list[Encoded], gold: list[int]
) -> list[tuple[int, int]]:
    """The loss entries of a row at which gold answers begin, each with its item."""
    counts = [prefix_tree.num_entries([encoded[i].sequences[j]]) for i, j in row]
    starts = itertools.accumulate(counts, initial=0)
    return [
        (start + k, i)
        for (i, j), start, count in zip(row, starts, counts, strict=False)
        if j == gold[i]
        for k in range(min(count, KL_POSITIONS))
    ]


def plan(
    config: config_lib.Config,
    tokenizer: Encoder,
    training: Dataset,
    seen: Collection[str] | None = None,
) -> ProbeItems:
    """Choose and pack the items of a run, of which there may be none.

    Args:
      config: of the run.
      tokenizer: the model's.
      training: the rows that it trains on.
      seen: what its base was trained on, as `trained_on.read_hashes` gives it.

    Raises:
      UserError: a set that `probe.datasets` names is not there, or has no item to offer.
    """
    planner = _Planner(config, tokenizer, datasets.suite(config.data), training, seen or ())
    if not config.probe.limit:
        found = []
    elif config.probe.datasets:
        found = [planner.probe_set(name) for name in config.probe.datasets]
    else:
        found = planner.default_sets()
    return ProbeItems(list({(s.dataset.task.name, s.dataset.name): s for s in found}.values()))


class _Planner(NamedTuple):
    """What all sets of a run are made from."""

    config: config_lib.Config
    tokenizer: Encoder
    source: Suite
    training: Dataset
    seen: Collection[str]

    def default_sets(self) -> list[ProbeSet]:
        """In-domain, out-of-domain and out-of-task, as far as `data.root` goes."""
        names = self.source.tests(self.source.task)
        inside = [name for name in names if self._is_own(name)]
        outside = [name for name in names if name not in inside]
        found = [*self._some(inside, 1), *self._some(outside, OTHER_SETS)]
        for task in self.source.tasks.values():
            if task.name != self.source.task.name:
                found += self._some(self.source.tests(task), 1)
        return found

    def _is_own(self, name: str) -> bool:
        return rows_lib.name_of(name) == self.training.name

    def _some(self, names: list[str], count: int) -> list[ProbeSet]:
        """The first sets that are fit for it: training must not fail for what nobody asked for."""
        found: list[ProbeSet] = []
        for name in names:
            if len(found) < count:
                with contextlib.suppress(UserError):
                    found.append(self.probe_set(name))
        return found

    def probe_set(self, name: str) -> ProbeSet:
        """The first items of a test set that have a gold label and are not trained on.

        Raises:
          UserError: no such set, no such item, or no template for its task.
        """
        dataset = self.source.test(name, "probe.datasets")
        task, data = dataset.task, self.config.data
        indices = self._indices(dataset)
        if not indices:
            raise UserError(
                f"probe.datasets={name}: no row of {dataset.source} has a gold label and is not "
                "trained on; leave it out"
            )
        template = self.source.template(task, data.prompt)
        prompter = Prompter(self.tokenizer, task, template, data.max_length, eos=False)
        golds = [dataset.examples[i]["output"] for i in indices]
        items = [
            Request(dataset.examples[i], (), task.labels or (gold,), dataset.where(i))
            for i, gold in zip(indices, golds, strict=True)
        ]
        trained = (self.training.task.name, self.training.name)
        return ProbeSet(
            dataset,
            relation(trained, (task.name, dataset.name)),
            prompter.encode(items),
            [task.labels.index(gold) if task.labels else 0 for gold in golds],
        )

    def _indices(self, dataset: Dataset) -> list[int]:
        task = dataset.task
        trained = set(trained_on.among(task, dataset.examples, self.seen))
        if task.name == self.training.task.name:
            trained.update(checks.overlap(task, dataset.examples, self.training.examples))
        fit = (i for i in dataset.usable if i not in trained)
        return list(itertools.islice(fit, self.config.probe.limit))
