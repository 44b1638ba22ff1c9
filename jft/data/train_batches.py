"""The batches of a training run, as a pure function of the step.

All lengths are known beforehand, so the whole run is planned: which examples make up a step, and
into how many rows they go. `batch(step)` depends on (config, seed, step, shard) alone; resuming
needs the step number and nothing else. Arrays come in a few shapes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from jft import config as config_lib
from jft.batch import Batch, LengthRules, Shape
from jft.data import checks, length_checks, prefix_tree
from jft.data.datasets import Dataset, suite
from jft.data.length_checks import LengthLimit
from jft.data.packed import PackedRows, count_batches, pack_items
from jft.data.packing import Budget
from jft.data.prefix_tree import TokenSequence
from jft.data.prompts import Encoded, Prompter, Request, make_prompter
from jft.data.seams import Encoder
from jft.errors import UserError
from jft.tasks import Example

# Tokens of the rows whose examples draw their demonstrations together, if `data.row_length` is 0: a
# constant, so that the draw does not depend on the devices.
GROUP_TOKENS = 4096
# A run has fewer steps than its epochs take where the last step would not be full.
MAX_LEFT_OUT = 0.1

# An example, and the demonstrations drawn for it, as indices.
Draw = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Batches:
    """A planned training run.

    Attributes:
      dataset: the training set.
      encoded: every distinct item of the run, each of one sequence: an example after its
        demonstrations.
      examples: the index in the training set of the example of each item.
      packed: the items of each step, packed.
      batch_size: examples of a step.
      unfit: the indices of the examples that are left out, since they do not fit.
    """

    dataset: Dataset
    encoded: list[Encoded]
    examples: list[int]
    packed: list[PackedRows]
    batch_size: int
    unfit: list[int]

    @property
    def steps(self) -> int:
        """The number of optimizer steps of the run."""
        return len(self.packed)

    @property
    def shapes(self) -> list[Shape]:
        """The shape of each step; few are distinct."""
        return [step.shape for step in self.packed]

    @property
    def micro_batches(self) -> Counter[Shape]:
        """The number of micro-batches of each shape that the run computes."""
        return count_batches(self.packed)

    def batch(self, step: int, shard: int = 0, shards: int = 1) -> Batch:
        """Build the micro-batches of a step, or a shard of each: arrays [A, B / shards, ...]."""
        return self.packed[step].micro_batches(shard, shards)

    def sha256(self) -> str:
        """Hash the tokens of all items: examples, prompts and the tokenizer determine them."""
        return prefix_tree.sha256([each.sequences[0] for each in self.encoded if each.fits])


def plan_run(
    config: config_lib.Config,
    tokenizer: Encoder,
    shards: int = 1,
    length_rules: LengthRules | None = None,
) -> Batches:
    """Plan a run whose micro-batches are split over `shards` devices.

    Args:
      config: of the run.
      tokenizer: the model's.
      shards: devices that the rows of a batch are split over.
      length_rules: those of the model; None: not known.

    Raises:
      UserError: data that cannot be trained on; the message names the file and the row.
    """
    data = config.data
    source = suite(data)
    task, dataset = source.task, source.training_set()
    demos = source.demos(task, data.demos or dataset.name, data.shots)
    template = source.template(task, data.prompt)
    prompter = make_prompter(
        data.answer_tokens, tokenizer, task, template, data.max_length, eos=True
    )
    pool = _Pool(dataset, demos, data, prompter)
    usable, unfit = checks.labelled(dataset), dict[int, int]()
    # Examples that do not fit with the demonstrations drawn for them leave the run, which then
    # draws anew.
    while (steps := _draw(config, pool, [i for i in usable if i not in unfit])) is None:
        unfit = pool.unfit()
        limit = LengthLimit(data.shots, data.max_length)
        length_checks.refuse_unfit(dataset, unfit, len(usable), limit)
    _check_row_length(pool, steps, data.row_length)
    budget = Budget(shards, config.train.micro_batch_tokens, data.row_length, length_rules)
    packed = pack_items(pool.encoded, steps, budget)
    return Batches(
        dataset, pool.encoded, pool.examples, packed, config.train.batch_size, sorted(unfit)
    )


def _draw(config: config_lib.Config, pool: _Pool, usable: list[int]) -> list[list[int]] | None:
    """Draw the items of every step; None where one of them does not fit."""
    steps = pool.draw(_order(config, usable))
    if not pool.fits(steps):
        return None
    if config.data.demo_mode == "per_row" and config.data.shots:
        _check_row_length(pool, steps, config.data.row_length)
        steps = pool.redraw_per_row(steps)
    return steps if pool.fits(steps) else None


class _Pool:
    """The distinct items of a run, each an example with the demonstrations drawn for it."""

    def __init__(
        self, dataset: Dataset, demos: list[Example], data: config_lib.Data, prompter: Prompter
    ):
        self.dataset, self.demos, self.data, self.prompter = dataset, demos, data, prompter
        self._demo_inputs = [dataset.task.inputs(demo) for demo in demos]
        self.encoded: list[Encoded] = []
        self.examples: list[int] = []  # of each item
        self._items: dict[Draw, int] = {}

    def draw(self, steps: list[np.ndarray]) -> list[list[int]]:
        """Draw demonstrations for the examples of every step; returns the items of every step.

        In the mode `per_row` these are the fixed ones, which `redraw_per_row` replaces.
        """
        if self.data.demo_mode == "per_example" and self.data.shots:
            draws = [
                [(i, self._random([i], step, place)) for place, i in enumerate(examples)]
                for step, examples in enumerate(steps)
            ]
        else:
            draws = [[(i, self._first(i)) for i in examples] for examples in steps]
        return self._encode(draws)

    def redraw_per_row(self, steps: list[list[int]]) -> list[list[int]]:
        """Draw demonstrations anew, the same for all examples that would share a row on one device.

        Other demonstrations may be longer, so these examples may need two rows in the end.
        """
        draws: list[list[Draw]] = []
        for step, items in enumerate(steps):
            sequences = self._sequences(items)
            length = self.data.row_length or max(GROUP_TOKENS, prefix_tree.longest(sequences))
            draws.append([])
            for group, places in enumerate(prefix_tree.pack(sequences, length)):
                examples = [self.examples[items[place]] for place in places]
                drawn = self._random(examples, step, group)
                draws[-1] += [(i, drawn) for i in examples]
        return self._encode(draws)

    def fits(self, steps: list[list[int]]) -> bool:
        """Check whether all items of the steps fit."""
        return all(self.encoded[i].fits for items in steps for i in items)

    def unfit(self) -> dict[int, int]:
        """Find the examples of items that do not fit, and their lengths with an empty input."""
        pairs = zip(self.examples, self.encoded, strict=True)
        return {i: encoded.least for i, encoded in pairs if not encoded.fits}

    def _sequences(self, items: list[int]) -> list[TokenSequence]:
        return [self.encoded[i].sequences[0] for i in items]

    def _encode(self, draws: list[list[Draw]]) -> list[list[int]]:
        """Encode the draws of every step that are new; returns the items of every step."""
        distinct = dict.fromkeys(draw for step in draws for draw in step)
        new = [draw for draw in distinct if draw not in self._items]
        # Requests with the same demonstrations share one tuple, whose text is made once.
        shared = {demos: tuple(self.demos[d] for d in demos) for _, demos in new}
        requests = [self._request(i, shared[demos]) for i, demos in new]
        for draw, encoded in zip(new, self.prompter.encode(requests), strict=True):
            self._items[draw] = len(self.encoded)
            self.encoded.append(encoded)
            self.examples.append(int(draw[0]))
        return [[self._items[draw] for draw in step] for step in draws]

    def _request(self, i: int, demos: tuple[Example, ...]) -> Request:
        example = self.dataset.examples[i]
        return Request(example, demos, (example["output"],), self.dataset.where(i))

    def _first(self, i: int) -> tuple[int, ...]:
        return tuple(self._allowed([i])[: self.data.shots])

    def _random(self, examples: list[int], *seed: int) -> tuple[int, ...]:
        rng = np.random.default_rng([self.data.seed, 1, *seed])
        return tuple(int(d) for d in rng.permutation(self._allowed(examples))[: self.data.shots])

    def _allowed(self, examples: list[int]) -> list[int]:
        """Find the demonstrations that are none of the examples: none is its own demonstration."""
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


def examples_of(epochs: float, num_examples: int) -> int:
    """Count the examples of some epochs: 2.3 of 100 are 230, though their product is less."""
    return int(round(epochs * num_examples, 6))


def steps_left_out(dataset: Dataset, asked: int, steps: int, size: int) -> list[checks.DataFinding]:
    """Report examples that a run leaves out at its end, since the last step would not be full.

    Args:
      dataset: the training set.
      asked: the examples of all its epochs.
      steps: of the run.
      size: examples of a step.
    """
    n = asked - steps * size
    if n <= MAX_LEFT_OUT * asked:
        return []
    text = (
        f"{n} of the {asked} examples of train.epochs are not trained on, since steps are whole; "
        f"set train.steps={math.ceil(asked / size)}, or lower train.batch_size"
    )
    return [checks.DataFinding("warning", "steps_left_out", dataset.place, n, asked, [], text)]


def _order(config: config_lib.Config, usable: list[int]) -> list[np.ndarray]:
    """Choose the examples of every step: epoch after epoch, each in an order of its own."""
    size, data, num_examples = config.train.batch_size, config.data, len(usable)
    steps = config.train.steps or examples_of(config.train.epochs, num_examples) // size
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


def _check_row_length(pool: _Pool, steps: list[list[int]], row_length: int) -> None:
    if not row_length:
        return
    for i in (i for items in steps for i in items):
        length = pool.encoded[i].length
        if length > row_length:
            raise UserError(
                f"data.row_length={row_length}: {pool.dataset.where(pool.examples[i])} has "
                f"{length} tokens; raise it, or set it to 0 to have it chosen"
            )
