"""The batches of a training run, as a pure function of the step.

All lengths are known beforehand, so the whole run is planned: which examples make up a step, and
into how many rows they go. `batch(step)` depends on (config, seed, step, process) alone; resuming
needs the step number and nothing else. Arrays come in a few shapes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import jax
import numpy as np

from jft import config as config_lib
from jft.batch import Batch, Shape
from jft.data import checks, packing, prefix_tree
from jft.data.datasets import Dataset, suite
from jft.data.prefix_tree import TokenSequence, longest
from jft.data.prompts import Encoded, Encoder, Prompter, Request
from jft.errors import UserError
from jft.tasks import Example

# Examples that draw their demonstrations together, as tokens: those of a step, or of a row.
GROUP_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Batches:
    """A planned training run.

    Attributes:
      dataset: the training rows.
      encoded: every distinct sequence of the run; steps refer to them by id.
      examples: the training row of each of them.
      rows: for each step its rows, each the ids of its sequences, sorted by tokens.
      shapes: of the arrays of each step; few are distinct.
      batch_size: examples of a step.
    """

    dataset: Dataset
    encoded: list[Encoded]
    examples: list[int]
    rows: list[list[list[int]]]
    shapes: list[Shape]
    batch_size: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.rows)

    @property
    def micro_batches(self) -> Counter[Shape]:
        """What the run computes: how many micro-batches of each shape hold anything."""
        found: Counter[Shape] = Counter()
        for rows, shape in zip(self.rows, self.shapes, strict=True):
            found[shape] += math.ceil(len(rows) / shape.rows)
        return found

    def batch(self, step: int, process: int = 0, processes: int = 1) -> Batch:
        """The step's micro-batches, each array [A, B, ...], in one of the run's shapes.

        Micro-batches without loss entries come last; the training step leaves them out.

        Args:
          step: from 0.
          process: whose share of every micro-batch is wanted.
          processes: how many share a micro-batch; each gets an equal part of its rows.
        """
        count, rows, *sizes = self.shapes[step]
        packed = self.packed(step)
        padded = [*packed, *([[]] * (count * rows - len(packed)))]
        share = rows // processes
        mine = [padded[a * rows + process * share + b] for a in range(count) for b in range(share)]
        flat = prefix_tree.build(mine, count * share, *sizes)
        return jax.tree.map(lambda array: array.reshape(count, share, *array.shape[1:]), flat)

    def sha256(self) -> str:
        """Of every token of the run: it changes when rows, prompts or the tokenizer do."""
        return prefix_tree.sha256([encoded.sequences[0] for encoded in self.encoded])

    def packed(self, step: int) -> list[list[TokenSequence]]:
        """The rows of a step, from 0, each with its sequences sorted."""
        return [[self.encoded[i].sequences[0] for i in row] for row in self.rows[step]]


def plan(config: config_lib.Config, tokenizer: Encoder, shards: int = 1) -> Batches:
    """Plan a run whose micro-batches so many devices share.

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
    _check_row_length(pool, wanted, data.row_length)
    if data.demo_mode == "per_row" and data.shots:
        wanted = pool.redraw_per_row(wanted)
        _check_row_length(pool, wanted, data.row_length)
    budget = packing.Budget(shards, config.train.micro_batch_tokens, data.row_length)
    packed = packing.plan([pool.of(ids) for ids in wanted], budget)
    rows = [
        [[ids[place] for place in row] for row in its_rows]
        for ids, its_rows in zip(wanted, packed.rows, strict=True)
    ]
    return Batches(
        dataset, pool.encoded, pool.examples, rows, packed.shapes, config.train.batch_size
    )


class _Pool:
    """The distinct sequences of a run, and which demonstrations each example gets."""

    def __init__(
        self, dataset: Dataset, demos: list[Example], data: config_lib.Data, prompter: Prompter
    ):
        self.dataset, self.demos, self.data, self.prompter = dataset, demos, data, prompter
        self._demo_inputs = [dataset.task.inputs(demo) for demo in demos]
        self.encoded: list[Encoded] = []
        self.examples: list[int] = []  # of each encoded sequence
        self._ids: dict[tuple, int] = {}

    def sequences(self, steps: list[np.ndarray]) -> list[list[int]]:
        """TokenSequence ids of every step; `per_row` starts from the fixed demonstrations."""
        if self.data.demo_mode == "per_example" and self.data.shots:
            draws = [
                [(i, self._draw([i], step, place)) for place, i in enumerate(ids)]
                for step, ids in enumerate(steps)
            ]
        else:
            draws = [[(i, self._first(i)) for i in ids] for ids in steps]
        return self._encode(draws)

    def redraw_per_row(self, wanted: list[list[int]]) -> list[list[int]]:
        """Draw demonstrations anew for the examples that rows on one device would hold.

        Other demonstrations may be longer, so these examples may come to stand in two rows.
        """
        draws: list[list[tuple[int, tuple[int, ...]]]] = []
        for step, ids in enumerate(wanted):
            sequences = self.of(ids)
            most = self.data.row_length or max(GROUP_TOKENS, longest(sequences))
            draws.append([])
            for group, places in enumerate(prefix_tree.pack(sequences, most)):
                examples = [self.examples[ids[place]] for place in places]
                drawn = self._draw(examples, step, group)
                draws[-1] += [(i, drawn) for i in examples]
        return self._encode(draws)

    def of(self, ids: list[int]) -> list[TokenSequence]:
        """The sequences of some ids."""
        return [self.encoded[i].sequences[0] for i in ids]

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

    def _item(self, i: int, demos: tuple[Example, ...]) -> Request:
        example = self.dataset.examples[i]
        return Request(example, demos, (example["output"],), self.dataset.where(i))

    def _first(self, i: int) -> tuple[int, ...]:
        return tuple(self._allowed([i])[: self.data.shots])

    def _draw(self, examples: list[int], *place: int) -> tuple[int, ...]:
        rng = np.random.default_rng([self.data.seed, 1, *place])
        return tuple(int(d) for d in rng.permutation(self._allowed(examples))[: self.data.shots])

    def _allowed(self, examples: list[int]) -> list[int]:
        """Demonstrations that are none of the examples: none is its own demonstration."""
        if not self.data.shots:
            return []
        own = {self.dataset.task.inputs(self.dataset.examples[i]) for i in examples}
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


def _check_row_length(pool: _Pool, wanted: list[list[int]], row_length: int) -> None:
    if not row_length:
        return
    for i in (i for ids in wanted for i in ids):
        length = len(pool.encoded[i].sequences[0].tokens)
        if length > row_length:
            raise UserError(
                f"data.row_length={row_length}: {pool.dataset.where(pool.examples[i])} has "
                f"{length} tokens; raise it, or set it to 0 to have it chosen"
            )
