"""The batches of a training run, as a pure function of the step.

All lengths are known beforehand, so the whole run is planned: which examples make up a step, and
into how many rows they go. `batch(step)` depends on (config, seed, step, process) alone; resuming
needs the step number and nothing else, and every step has the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jft import config as config_lib
from jft.batch import Batch
from jft.data import checks, prefix_tree
from jft.data.prefix_tree import Sequence
from jft.data.prompts import Encoded, Encoder, Item, Prompter
from jft.data.sources import Dataset, Row, suite
from jft.data.trained_on import inputs
from jft.errors import UserError

# Row lengths are multiples of this: compilers and accelerators like round shapes.
ROW_MULTIPLE = 128
# Steps that the choice of a row length looks at.
SAMPLE_STEPS = 64
# The row length at which attention costs as much as the matrix products, roughly.
ATTENTION_TOKENS = 1024
# What a micro-batch costs besides its tokens, in tokens: adding up the gradients.
MICRO_BATCH_OVERHEAD = 32


class StepPlan(NamedTuple):
    """One optimizer step: for each row the ids of its sequences, sorted by tokens."""

    rows: list[list[int]]


@dataclass(frozen=True, slots=True)
class Batches:
    """A planned training run.

    Attributes:
      dataset: the training rows.
      encoded: every distinct sequence of the run; steps refer to them by id.
      examples: the training row of each of them.
      plans: the steps, in order.
      row_length: T.
      num_entries: M, the most loss entries of any row.
      batch_size: examples of a step.
    """

    dataset: Dataset
    encoded: list[Encoded]
    examples: list[int]
    plans: list[StepPlan]
    row_length: int
    num_entries: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.plans)

    @property
    def max_rows(self) -> int:
        """The most rows of any step."""
        return max(len(plan.rows) for plan in self.plans)

    def micro_rows(self, shards: int, tokens: int) -> int:
        """Rows of a micro-batch for which the whole run computes least.

        Args:
          shards: how many devices share the rows of a micro-batch.
          tokens: the most that a device takes at once; at least one row.
        """
        rows = np.array([len(plan.rows) for plan in self.plans])

        def cost(size: int) -> float:
            batches = -(-rows // size)
            return float((batches * (size * self.row_length + MICRO_BATCH_OVERHEAD)).sum())

        most = max(1, min(tokens // self.row_length, -(-self.max_rows // shards)))
        return min((shards * n for n in range(1, most + 1)), key=cost)

    def batch(self, step: int, micro_rows: int, process: int = 0, processes: int = 1) -> Batch:
        """The step's micro-batches, each array [A, B, ...], the same shape for every step.

        Micro-batches without loss entries come last; the training step leaves them out.

        Args:
          step: from 0.
          micro_rows: rows of a micro-batch over all processes, which `processes` divides.
          process: whose share of every micro-batch is wanted.
          processes: how many share a micro-batch; each gets B = micro_rows / processes rows.
        """
        rows = self.plans[step].rows
        count = math.ceil(self.max_rows / micro_rows)
        padded = [*rows, *([[]] * (count * micro_rows - len(rows)))]
        share = micro_rows // processes
        mine = [
            [self._sequence(i) for i in padded[a * micro_rows + process * share + b]]
            for a in range(count)
            for b in range(share)
        ]
        flat = prefix_tree.build(mine, count * share, self.row_length, self.num_entries)
        return Batch(*(array.reshape(count, share, *array.shape[1:]) for array in flat))

    def sha256(self) -> str:
        """Of every token of the run: it changes when rows, prompts or the tokenizer do."""
        return prefix_tree.sha256([encoded.sequences[0] for encoded in self.encoded])

    def packed(self, step: int) -> list[list[Sequence]]:
        """The rows of a step, from 0, each with its sequences sorted."""
        return [[self._sequence(i) for i in row] for row in self.plans[step].rows]

    def _sequence(self, i: int) -> Sequence:
        return self.encoded[i].sequences[0]


def plan(config: config_lib.Config, tokenizer: Encoder) -> Batches:
    """Plan a run.

    Raises:
      UserError: data that cannot be trained on; the message names the file and the row.
    """
    data = config.data
    source = suite(data)
    task, dataset = source.task, source.training()
    demos = source.demos(task, data.demos or dataset.name, data.shots)
    template = source.template(task, data.prompt)
    prompter = Prompter(tokenizer, task, template, data.max_length, eos=True)
    steps = _order(config, checks.trainable(dataset))
    pool = _Pool(dataset, demos, data, prompter)
    wanted = pool.sequences(steps)
    row_length = data.row_length or _choose_row_length(pool, wanted)
    _check_row_length(pool, wanted, row_length)
    plans = [_plan_step(pool, ids, row_length) for ids in wanted]
    if data.demo_mode == "per_row" and data.shots:
        plans = pool.redraw_per_row(plans, row_length)
    rows = [[pool.encoded[i].sequences[0] for i in row] for p in plans for row in p.rows]
    entries = max(map(prefix_tree.entries, rows))
    return Batches(
        dataset, pool.encoded, pool.examples, plans, row_length, entries, config.train.batch_size
    )


class _Pool:
    """The distinct sequences of a run, and which demonstrations each example gets."""

    def __init__(
        self, dataset: Dataset, demos: list[Row], data: config_lib.Data, prompter: Prompter
    ):
        self.dataset, self.demos, self.data, self.prompter = dataset, demos, data, prompter
        self._demo_inputs = [inputs(dataset.task, demo) for demo in demos]
        self.encoded: list[Encoded] = []
        self.examples: list[int] = []  # of each encoded sequence
        self._ids: dict[tuple, int] = {}

    def sequences(self, steps: list[np.ndarray]) -> list[list[int]]:
        """Sequence ids of every step; `per_row` starts from the fixed demonstrations."""
        if self.data.demo_mode == "per_example" and self.data.shots:
            draws = [
                [(i, self._draw([i], step, place)) for place, i in enumerate(ids)]
                for step, ids in enumerate(steps)
            ]
        else:
            draws = [[(i, self._first(i)) for i in ids] for ids in steps]
        return self._encode(draws)

    def redraw_per_row(self, plans: list[StepPlan], row_length: int) -> list[StepPlan]:
        """Draw demonstrations anew for the examples of each row, and pack them again.

        Other demonstrations may be longer, so the examples of one row may now take two.
        """
        groups = [[self.examples[i] for i in row] for plan in plans for row in plan.rows]
        places = [(s, r) for s, plan in enumerate(plans) for r in range(len(plan.rows))]
        draws = []
        for group, (step, row) in zip(groups, places, strict=True):
            drawn = self._draw(group, step, row)
            draws.append([(i, drawn) for i in group])
        encoded = self._encode(draws)
        _check_row_length(self, encoded, row_length)
        packed: list[list[list[int]]] = [[] for _ in plans]
        for (step, _), ids in zip(places, encoded, strict=True):
            packed[step].extend(_plan_step(self, ids, row_length).rows)
        return [StepPlan(rows) for rows in packed]

    def _encode(self, draws: list[list[tuple[int, tuple[int, ...]]]]) -> list[list[int]]:
        new = [
            key for key in dict.fromkeys(k for step in draws for k in step) if key not in self._ids
        ]
        shared = {demos: tuple(self.demos[d] for d in demos) for _, demos in new}
        items = [self._item(i, shared[demos]) for i, demos in new]
        for key, encoded in zip(new, self.prompter.encode(items), strict=True):
            self._ids[key] = len(self.encoded)
            self.encoded.append(encoded)
            self.examples.append(int(key[0]))
        return [[self._ids[key] for key in step] for step in draws]

    def _item(self, i: int, demos: tuple[Row, ...]) -> Item:
        row = self.dataset.rows[i]
        return Item(row, demos, (row["output"],), self.dataset.where(i))

    def _first(self, i: int) -> tuple[int, ...]:
        return tuple(self._allowed([i])[: self.data.shots])

    def _draw(self, examples: list[int], *place: int) -> tuple[int, ...]:
        rng = np.random.default_rng([self.data.seed, 1, *place])
        return tuple(int(d) for d in rng.permutation(self._allowed(examples))[: self.data.shots])

    def _allowed(self, examples: list[int]) -> list[int]:
        """Demonstrations that are none of the examples: none is its own demonstration."""
        if not self.data.shots:
            return []
        own = {inputs(self.dataset.task, self.dataset.rows[i]) for i in examples}
        allowed = [d for d, demo in enumerate(self._demo_inputs) if demo not in own]
        if len(allowed) < self.data.shots:
            raise UserError(
                f"data.shots={self.data.shots}: {self.dataset.where(examples[0])} is among its "
                f"{len(self.demos)} demonstrations, which leaves {len(allowed)}"
            )
        return allowed


def _order(config: config_lib.Config, usable: list[int]) -> list[np.ndarray]:
    """The example indices of every step: epoch after epoch, each in an order of its own."""
    size, data, num_examples = config.train.batch_size, config.data, len(usable)
    steps = config.train.steps or int(config.train.epochs * num_examples) // size
    if not steps:
        raise UserError(
            f"train.batch_size={size}: train.epochs={config.train.epochs} of {num_examples} rows "
            "are less than one step; lower it, or set train.steps"
        )
    epochs = math.ceil(steps * size / num_examples)
    order = [
        np.random.default_rng([data.seed, 0, epoch]).permutation(num_examples)
        if data.shuffle
        else np.arange(num_examples)
        for epoch in range(epochs)
    ]
    return list(np.array(usable)[np.concatenate(order)[: steps * size]].reshape(steps, size))


def _plan_step(pool: _Pool, ids: list[int], row_length: int) -> StepPlan:
    sequences = [pool.encoded[i].sequences[0] for i in ids]
    return StepPlan([[ids[j] for j in row] for row in prefix_tree.pack(sequences, row_length)])


def _longest(pool: _Pool, wanted: list[list[int]]) -> int:
    return max(len(pool.encoded[i].sequences[0].tokens) for ids in wanted for i in ids)


def _choose_row_length(pool: _Pool, wanted: list[list[int]]) -> int:
    sample = wanted[:SAMPLE_STEPS]
    return choose_row_length(
        _longest(pool, wanted),
        lambda length: sum(len(_plan_step(pool, ids, length).rows) for ids in sample),
    )


def choose_row_length(longest: int, count_rows: Callable[[int], int]) -> int:
    """The multiple of ROW_MULTIPLE that costs least, of those that hold the longest sequence.

    Cost is the slots to compute, and for attention a share that grows with the row.

    Args:
      longest: tokens of the longest sequence.
      count_rows: how many rows it takes at a length.
    """
    shortest = math.ceil(longest / ROW_MULTIPLE)

    def cost(length: int) -> float:
        return count_rows(length) * length * (1 + length / ATTENTION_TOKENS)

    lengths = [ROW_MULTIPLE * n for n in range(shortest, max(2 * shortest, 8) + 1)]
    return min(lengths, key=cost)


def _check_row_length(pool: _Pool, wanted: list[list[int]], row_length: int) -> None:
    for i in (i for ids in wanted for i in ids):
        length = len(pool.encoded[i].sequences[0].tokens)
        if length > row_length:
            raise UserError(
                f"data.row_length={row_length}: {pool.dataset.where(pool.examples[i])} has "
                f"{length} tokens; raise it, or set it to 0 to have it chosen"
            )
