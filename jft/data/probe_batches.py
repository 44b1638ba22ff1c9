"""Probe items: a few items of several test sets, none of them trained on, to watch a run by."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jft import config as config_lib
from jft.batch import Batch, PackingRules
from jft.data import checks, prefix_tree, trained_on
from jft.data.eval_grid import relations
from jft.data.packed import PackedRows, SequenceId, pack_items
from jft.data.packing import Budget
from jft.data.prompting.prompter import PromptEncoder, encode_labels, is_chat, make_prompter
from jft.data.prompting.prompts import Encoded, Request
from jft.data.rows import datasets
from jft.data.rows.dataset_ref import DatasetRef
from jft.data.rows.datasets import Dataset, Suite
from jft.data.validation import ValidationSet
from jft.errors import UserError
from jft.tasks import CHOICE, LABELS, VALIDATION, Task, answers_of

# The first tokens of a gold answer at which the model's whole distribution is looked at.
KL_POSITIONS = 4
# Items of a validation set whose distributions are looked at.
LOOKED_AT = 16
# Other test sets of the task that are watched when the config names none.
OTHER_SETS = 2


class ProbeSet(NamedTuple):
    """The items of one test set.

    Attributes:
      dataset: the whole test set.
      relation: to the training set.
      encoded: the sequences of each item: one for each label or choice, or its gold answer, which
        may be several turns.
      gold: the numbers of the gold answer's sequences among those of each item.
      looked_at: the first items, at whose gold answers whole distributions are looked at: these are
        large.
    """

    dataset: Dataset
    relation: str
    encoded: list[Encoded]
    gold: list[tuple[int, ...]]
    looked_at: int

    @property
    def has_choices(self) -> bool:
        """True where an item has answers to choose among."""
        return self.dataset.task.kind in (LABELS, CHOICE)


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
    def gold(self) -> list[tuple[int, ...]]:
        """The numbers of the gold answer's sequences among those of each item."""
        return [gold for each in self.sets for gold in each.gold]

    @property
    def _gold_looked_at(self) -> list[tuple[int, ...]]:
        return [
            gold if i < each.looked_at else ()
            for each in self.sets
            for i, gold in enumerate(each.gold)
        ]

    def sha256(self) -> str:
        """Hash every token, and where the gold answer of each item begins."""
        pairs = zip(self.encoded, self.gold, strict=True)
        return prefix_tree.sha256([each.sequences[j] for each, gold in pairs for j in gold])

    def probe_batches(self) -> Iterator[ProbeBatch]:
        """Build all batches, which have one shape."""
        gold = self._gold_looked_at
        width = max(len(self._gold_entries(row, gold)) for row in self.rows)
        for batch, rows in self.batches():
            entries_BE = np.zeros((self.shape.rows, width), np.int32)
            items_BE = np.full((self.shape.rows, width), -1)
            for b, row in enumerate(rows):
                for e, (entry, item) in enumerate(self._gold_entries(row, gold)):
                    entries_BE[b, e], items_BE[b, e] = entry, item
            yield ProbeBatch(batch, rows, entries_BE, items_BE)

    def _gold_entries(
        self, row: list[SequenceId], gold: list[tuple[int, ...]]
    ) -> list[tuple[int, int]]:
        """Find the loss entries of a row at which gold answers begin, each with its item."""
        return [
            (entry, i)
            for (i, j), entries in zip(row, self.entries(row), strict=True)
            if j in gold[i]
            for entry in entries[:KL_POSITIONS]
        ]


def plan_probes(
    config: config_lib.Config,
    tokenizer: PromptEncoder,
    training: Sequence[Dataset],
    valid: Sequence[ValidationSet] = (),
    seen: Collection[str] | None = None,
    shards: int = 1,
    packing_rules: PackingRules | None = None,
) -> ProbeItems | None:
    """Choose and pack the items to probe a run with; None where there are none.

    Args:
      config: of the run.
      tokenizer: the model's.
      training: the training sets.
      valid: rows to judge the run by, which come first.
      seen: the hashes of what its base was trained on, from `trained_on.read_hashes`.
      shards: devices that the rows of a batch are split over.
      packing_rules: those of the model; None: not known.

    Raises:
      UserError: a set that `probe.datasets` names is not there, or has no item to offer.
    """
    planner = _Planner(config, tokenizer, datasets.suite(config.data), training, seen or ())
    if not config.probe.limit:
        found: list[ProbeSet] = []
    elif config.probe.datasets:
        found = [planner.probe_set(name) for name in config.probe.datasets]
    else:
        found = planner.default_sets()
    found = [*map(planner.valid_set, valid), *found]
    sets = list({(s.relation, s.dataset.task.name, s.dataset.source): s for s in found}.values())
    encoded = [each for probe_set in sets for each in probe_set.encoded]
    if not encoded:
        return None
    budget = Budget(shards, config.train.micro_batch_tokens, packing_rules=packing_rules)
    (packed,) = pack_items(encoded, [range(len(encoded))], budget)
    return ProbeItems(encoded, packed.rows, packed.shape, sets)


def _gold(request: Request, encoded: Encoded, task: Task) -> tuple[int, ...]:
    """Find the sequences of the gold answer: one among several answers, or all turns."""
    if answers_of(task, request.example):
        return (request.answers.index(request.example["output"]),)
    return tuple(range(len(encoded.sequences)))


def _set_of(name: str) -> str:
    """Name the set of a file by its task: `sentiment/shops` of `sentiment/shops_test_500`."""
    task, _, _ = name.partition("/")
    return f"{task}/{DatasetRef.parse(name).name}"


class _Planner(NamedTuple):
    """The maker of the sets of a run."""

    config: config_lib.Config
    tokenizer: PromptEncoder
    source: Suite
    training: Sequence[Dataset]
    seen: Collection[str]

    def default_sets(self) -> list[ProbeSet]:
        """Choose sets in-domain, out-of-domain and out-of-task, as far as `data.root` has them."""
        trained = {each.task.name: each.task for each in self.training}
        own = {f"{each.task.name}/{each.name}" for each in self.training}
        names = self.source.test_names(*trained.values())
        inside = [name for name in names if _set_of(name) in own]
        outside = [name for name in names if name not in inside]
        found = [*self._some(inside, len(own)), *self._some(outside, OTHER_SETS)]
        for task in self.source.tasks.values():
            if task.name not in trained:
                found += self._some(self.source.test_names(task), 1)
        return found

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
        chat, limit = is_chat(data.chat, task), data.max_length
        prompter = make_prompter(data, self.tokenizer, task, template, chat, limit, eos=False)
        trained = self._trained_on(dataset)
        fit = (i for i in dataset.usable if i not in trained)
        chosen = itertools.islice(fit, self.config.probe.limit)
        tried = [self._request(dataset, i) for i in chosen]
        items = [
            (request, encoded)
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
            [_gold(request, encoded, task) for request, encoded in items],
            len(items),
        )

    def valid_set(self, valid: ValidationSet) -> ProbeSet:
        """Take rows to judge the run by, as examples to train on are written.

        Raises:
          UserError: none of them fits.
        """
        of, limit, shots = valid.of, self.config.probe.valid, self.config.data.shots
        task, examples = of.dataset.task, of.dataset.examples
        requests, apart = [], all(of.dataset is not each for each in self.training)
        trained = self._trained_on(of.dataset) if apart else set()
        rows = [i for i in valid.indices if i not in trained]
        for i in rows[: limit or None]:
            own, answers = task.inputs(examples[i]), answers_of(task, examples[i])
            demos = tuple(demo for demo in of.demos if task.inputs(demo) != own)[:shots]
            requests.append(of.request(i, demos, answers))
        tried = [each._replace(shown=()) for each in of.prompter.encode(requests)]
        items = [(r, each) for r, each in zip(requests, tried, strict=True) if each.fits]
        if not items:
            raise UserError(
                f"data.valid: of {len(valid.indices)} rows of {of.dataset.source} "
                f"{len(valid.indices) - len(rows)} are trained on, and none of {len(tried)} others "
                f"fits data.max_length={self.config.data.max_length}"
            )
        return ProbeSet(
            of.dataset,
            VALIDATION,
            [each for _, each in items],
            [_gold(request, each, task) for request, each in items],
            min(len(items), LOOKED_AT),
        )

    def _relation(self, dataset: Dataset) -> str:
        train = [(each.task.name, each.name) for each in self.training]
        return relations(self.config, [dataset], train)[dataset.task.name, dataset.name]

    def _request(self, dataset: Dataset, i: int) -> Request:
        example = dataset.examples[i]
        answers = answers_of(dataset.task, example) or (example["output"],)
        return Request(example, (), answers, dataset.where(i))

    def _trained_on(self, dataset: Dataset) -> set[int]:
        task = dataset.task
        trained = set(trained_on.among(task, dataset.examples, self.seen))
        for each in self.training:
            if each.task.name == task.name:
                trained.update(checks.overlap(task, dataset.examples, each.examples))
        return trained
