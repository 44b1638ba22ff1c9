"""Probe items: a few items of several test sets, none of them trained on, to watch a run by."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jft import config as config_lib
from jft.batch import Batch, LengthRules
from jft.data import checks, datasets, prefix_tree, trained_on
from jft.data.dataset_ref import DatasetRef
from jft.data.datasets import Dataset, Suite
from jft.data.eval_grid import relations
from jft.data.packed import PackedRows, SequenceId, pack_items
from jft.data.packing import Budget
from jft.data.prompts import Encoded, Request, encode_labels, make_prompter
from jft.data.seams import Encoder
from jft.errors import UserError

# The first tokens of a gold answer at which the model's whole distribution is looked at.
KL_POSITIONS = 4
# Other test sets of the task that are watched when the config names none.
OTHER_SETS = 2


class ProbeSet(NamedTuple):
    """The items of one test set.

    Attributes:
      dataset: the whole test set.
      relation: to the training set.
      encoded: the sequences of each item: one for each label, or its gold answer alone.
      gold: the number of the gold answer among the sequences of each item.
    """

    dataset: Dataset
    relation: str
    encoded: list[Encoded]
    gold: list[int]


class ProbeBatch(NamedTuple):
    """A batch of probe items, and the entries at which the whole distribution is looked at.

    Attributes:
      batch: the rows.
      rows: their (item, sequence) pairs.
      entries_BE: the loss entries of the first `KL_POSITIONS` tokens of the gold answers in each
        row; 0 in padding.
      items_BE: the item of each of these entries; -1 in padding.
    """

    batch: Batch
    rows: list[list[SequenceId]]
    entries_BE: np.ndarray
    items_BE: np.ndarray


@dataclass(frozen=True, slots=True)
class ProbeItems(PackedRows):
    """The items of a run, at least one, packed; they are numbered through all sets.

    Attributes:
      sets: in the order of the results.
    """

    sets: list[ProbeSet]

    @property
    def gold(self) -> list[int]:
        """The number of the gold answer among the sequences of each item."""
        return [gold for each in self.sets for gold in each.gold]

    def sha256(self) -> str:
        """Hash every token, and where the gold answer of each item begins."""
        pairs = zip(self.encoded, self.gold, strict=True)
        return prefix_tree.sha256([encoded.sequences[gold] for encoded, gold in pairs])

    def probe_batches(self) -> Iterator[ProbeBatch]:
        """Build all batches, which have one shape."""
        gold = self.gold
        width = max(len(self._gold_entries(row, gold)) for row in self.rows)
        for batch, rows in self.batches():
            entries_BE = np.zeros((self.shape.rows, width), np.int32)
            items_BE = np.full((self.shape.rows, width), -1)
            for b, row in enumerate(rows):
                for e, (entry, item) in enumerate(self._gold_entries(row, gold)):
                    entries_BE[b, e], items_BE[b, e] = entry, item
            yield ProbeBatch(batch, rows, entries_BE, items_BE)

    def _gold_entries(self, row: list[SequenceId], gold: list[int]) -> list[tuple[int, int]]:
        """Find the loss entries of a row at which gold answers begin, each with its item."""
        return [
            (entry, i)
            for (i, j), entries in zip(row, self.entries(row), strict=True)
            if j == gold[i]
            for entry in entries[:KL_POSITIONS]
        ]


def plan_probes(
    config: config_lib.Config,
    tokenizer: Encoder,
    training: Dataset,
    seen: Collection[str] | None = None,
    shards: int = 1,
    length_rules: LengthRules | None = None,
) -> ProbeItems | None:
    """Choose and pack the items to probe a run with; None where there are none.

    Args:
      config: of the run.
      tokenizer: the model's.
      training: the training set.
      seen: the hashes of what its base was trained on, from `trained_on.read_hashes`.
      shards: devices that the rows of a batch are split over.
      length_rules: those of the model; None: not known.

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
    sets = list({(s.dataset.task.name, s.dataset.name): s for s in found}.values())
    encoded = [each for probe_set in sets for each in probe_set.encoded]
    if not encoded:
        return None
    budget = Budget(shards, config.train.micro_batch_tokens, length_rules=length_rules)
    (packed,) = pack_items(encoded, [range(len(encoded))], budget)
    return ProbeItems(encoded, packed.rows, packed.shape, sets)


class _Planner(NamedTuple):
    """The maker of the sets of a run."""

    config: config_lib.Config
    tokenizer: Encoder
    source: Suite
    training: Dataset
    seen: Collection[str]

    def default_sets(self) -> list[ProbeSet]:
        """Choose sets in-domain, out-of-domain and out-of-task, as far as `data.root` has them."""
        names = self.source.test_names(self.source.task)
        inside = [name for name in names if self._is_own(name)]
        outside = [name for name in names if name not in inside]
        found = [*self._some(inside, 1), *self._some(outside, OTHER_SETS)]
        for task in self.source.tasks.values():
            if task.name != self.source.task.name:
                found += self._some(self.source.test_names(task), 1)
        return found

    def _is_own(self, name: str) -> bool:
        return DatasetRef.parse(name).name == self.training.name

    def _some(self, names: list[str], count: int) -> list[ProbeSet]:
        """Take the first sets that can be used: a broken set that no config names is left out."""
        found: list[ProbeSet] = []
        for name in names:
            if len(found) < count:
                with contextlib.suppress(UserError):
                    found.append(self.probe_set(name))
        return found

    def probe_set(self, name: str) -> ProbeSet:
        """Take the first items of a test set that have a gold label and are not trained on.

        Raises:
          UserError: no such set, no such item, or no template for its task.
        """
        dataset = self.source.test_set(name, "probe.datasets")
        task, data = dataset.task, self.config.data
        template = self.source.template(task, data.prompt)
        prompter = make_prompter(
            data.answer_tokens, self.tokenizer, task, template, data.max_length, eos=False
        )
        trained = self._trained_on(dataset)
        fit = (i for i in dataset.usable if i not in trained)
        chosen = itertools.islice(fit, self.config.probe.limit)
        tried = [self._request(dataset, i) for i in chosen]
        items = [
            (request.example["output"], encoded)
            for request, encoded in zip(tried, encode_labels(prompter, tried), strict=True)
            if encoded.fits
        ]
        if not items:
            number, useless = len(dataset.examples), len(trained.intersection(dataset.usable))
            raise UserError(
                f"probe.datasets={name}: of {number} rows of {dataset.source} "
                f"{number - len(dataset.usable)} are without a gold label, {useless} are trained "
                f"on, and {len(tried)} do not fit data.max_length={data.max_length}; leave it out"
            )
        return ProbeSet(
            dataset,
            self._relation(dataset),
            [encoded for _, encoded in items],
            [task.labels.index(gold) if task.labels else 0 for gold, _ in items],
        )

    def _relation(self, dataset: Dataset) -> str:
        train, key = (
            (self.training.task.name, self.training.name),
            (dataset.task.name, dataset.name),
        )
        return relations(self.config, [dataset], train)[key]

    def _request(self, dataset: Dataset, i: int) -> Request:
        example = dataset.examples[i]
        answers = dataset.task.labels or (example["output"],)
        return Request(example, (), answers, dataset.where(i))

    def _trained_on(self, dataset: Dataset) -> set[int]:
        task = dataset.task
        trained = set(trained_on.among(task, dataset.examples, self.seen))
        if task.name == self.training.task.name:
            trained.update(checks.overlap(task, dataset.examples, self.training.examples))
        return trained
