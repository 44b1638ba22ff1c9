"""The batches of a training run, as a pure function of the step.

All lengths are known beforehand, so the whole run is planned: which examples make up a step, and
into how many rows they go. `batch(step)` depends on (config, seed, step, shard) alone; resuming
needs the step number and nothing else. Arrays come in a few shapes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jft import config as config_lib
from jft.batch import Batch, PackingRules, Shape
from jft.data import checks, length_checks, mixture, prefix_tree
from jft.data.draws import DrawnItems, TrainingSet
from jft.data.length_checks import LengthLimit
from jft.data.mixture import ExampleId
from jft.data.packed import PackedRows, count_batches, pack_items
from jft.data.packing import Budget
from jft.data.prompting.prompter import PromptEncoder
from jft.data.prompting.prompts import Encoded
from jft.data.rows.datasets import Dataset, suite
from jft.data.validation import ValidationSet, held_out, validation_sets
from jft.errors import UserError

# A run has fewer steps than its epochs take where the last step would not be full.
MAX_LEFT_OUT = 0.1


@dataclass(frozen=True, slots=True)
class Batches:
    """A planned training run.

    Attributes:
      sets: the training sets.
      shares: of all examples, the share that each set is to have.
      encoded: every distinct item of the run: an example after its demonstrations, of one
        sequence, or of one for each turn.
      examples: the example of each item.
      order: the items in the order in which they were drawn, those that were dropped among them.
      packed: the items of each step, packed.
      batch_size: examples of a step.
      unfit: the examples that are left out, since they do not fit.
      held_out: the indices of the examples of each set that are held out for validation.
      valid: examples to judge the run by; none without `data.valid`.
    """

    sets: Sequence[TrainingSet]
    shares: list[float]
    encoded: Sequence[Encoded]
    examples: list[ExampleId]
    order: list[int]
    packed: list[PackedRows]
    batch_size: int
    unfit: list[ExampleId]
    held_out: list[list[int]]
    valid: list[ValidationSet]

    @property
    def datasets(self) -> list[Dataset]:
        """The examples of each training set."""
        return [each.dataset for each in self.sets]

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

    def examples_by_set(self, step: int) -> list[int]:
        """Count the examples of each training set that a step holds."""
        counts = [0] * len(self.sets)
        for i, j in (each for row in self.packed[step].rows for each in row):
            counts[self.examples[i][0]] += j == 0
        return counts

    def batch(self, step: int, shard: int = 0, shards: int = 1) -> Batch:
        """Build the micro-batches of a step, or a shard of each: arrays [A, B / shards, ...]."""
        return self.packed[step].micro_batches(shard, shards)

    def sha256(self) -> str:
        """Hash the tokens of all items: examples, prompts and the tokenizer determine them."""
        return prefix_tree.sha256(s for i in self.order for s in self.encoded[i].packed)


def plan_run(
    config: config_lib.Config,
    tokenizer: PromptEncoder,
    shards: int = 1,
    packing_rules: PackingRules | None = None,
) -> Batches:
    """Plan a run whose micro-batches are split over `shards` devices.

    Args:
      config: of the run.
      tokenizer: the model's.
      shards: devices that the rows of a batch are split over.
      packing_rules: those of the model; None: not known.

    Raises:
      UserError: data that cannot be trained on; the message names the file and the row.
    """
    data = config.data
    source = suite(data)
    sets = [TrainingSet.of(source, each, tokenizer) for each in source.training_sets()]
    items, unfit = DrawnItems(sets, data), dict[ExampleId, int]()
    labelled = [checks.labelled(each.dataset) for each in sets]
    held = [held_out(each.dataset, rows, data) for each, rows in zip(sets, labelled, strict=True)]
    usable = [sorted({*rows} - {*out}) for rows, out in zip(labelled, held, strict=True)]
    fit = usable
    # Examples that do not fit with the demonstrations drawn for them leave the run, which then
    # draws anew.
    while (steps := _draw(config, items, fit)) is None:
        unfit = items.unfit()
        for number, (each, of) in enumerate(zip(sets, usable, strict=True)):
            own = {i: least for (of_set, i), least in unfit.items() if of_set == number}
            limit = LengthLimit(data.shots, data.max_length)
            length_checks.refuse_unfit(each.dataset, own, len(of), limit)
        fit = [[i for i in of if (n, i) not in unfit] for n, of in enumerate(usable)]
    _check_row_length(items, steps, data.row_length)
    budget = Budget(shards, config.train.micro_batch_tokens, data.row_length, packing_rules)
    return Batches(
        sets=sets,
        shares=mixture.shares(data.weights, list(map(len, fit))),
        encoded=items.encoded,
        examples=items.examples,
        order=items.order,
        packed=pack_items(items.encoded, steps, budget),
        batch_size=config.train.batch_size,
        unfit=sorted(unfit),
        held_out=held,
        valid=validation_sets(source, sets, held, tokenizer),
    )


def _draw(
    config: config_lib.Config, items: DrawnItems, usable: Sequence[list[int]]
) -> list[list[int]] | None:
    """Draw the items of every step; None where one of them does not fit."""
    steps = items.draw(_order(config, usable))
    if not items.fits(steps):
        return None
    if config.data.demo_mode == "per_row" and config.data.shots:
        _check_row_length(items, steps, config.data.row_length)
        steps = items.redraw_per_row(steps)
    return steps if items.fits(steps) else None


def examples_of(epochs: float, num_examples: int) -> int:
    """Count the examples of some epochs: 2.3 of 100 are 230, though their product is less."""
    return int(round(epochs * num_examples, 6))


def steps_left_out(where: str, asked: int, steps: int, size: int) -> list[checks.DataFinding]:
    """Report examples that a run leaves out at its end, since the last step would not be full.

    Args:
      where: names the training sets.
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
    return [checks.DataFinding("warning", "steps_left_out", where, n, asked, [], text)]


def _order(config: config_lib.Config, usable: Sequence[list[int]]) -> list[list[ExampleId]]:
    """Choose the examples of every step among the usable ones of each set."""
    size, data, sizes = config.train.batch_size, config.data, list(map(len, usable))
    steps = config.train.steps or examples_of(config.train.epochs, sum(sizes)) // size
    if not steps:
        raise UserError(
            f"train.batch_size={size}: train.epochs={config.train.epochs} of {sum(sizes)} rows "
            "are less than one step; lower it, or set train.steps"
        )
    shares = mixture.shares(data.weights, sizes)
    places = mixture.order(sizes, shares, steps, size, data.seed, data.shuffle)
    return [[(number, usable[number][place]) for number, place in step] for step in places]


def _check_row_length(items: DrawnItems, steps: list[list[int]], row_length: int) -> None:
    if not row_length:
        return
    for i in (i for of_step in steps for i in of_step):
        length = items.encoded[i].length
        if length > row_length:
            raise UserError(
                f"data.row_length={row_length}: {items.where(i)} has {length} tokens; raise it, or "
                "set it to 0 to have it chosen"
            )
