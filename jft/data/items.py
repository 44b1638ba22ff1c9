"""Test items as batches: what a model is to score or to continue branches from shared prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jft import config as config_lib
from jft.batch import Batch, Shape
from jft.data import packing, prefix_tree
from jft.data.packing import Budget
from jft.data.prompts import Encoded, Encoder, Item, Prompter
from jft.data.settings import Setting
from jft.errors import UserError

# Sizes are rounded up to multiples, or to powers of two, so that few shapes are compiled for many
# cells: what costs little by much, rows by little, and so the prompts of a row, of which every one
# costs a step of decoding.
ROW_MULTIPLE = 256
FEWEST_LABEL_ENTRIES = 64
KEY_BLOCKS_MULTIPLE = 4
PROMPTS_MULTIPLE = 4
# A new token of every prompt meets all keys of its row: that many cost what the rest of it costs.
KEYS_OF_A_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class Items:
    """The items of one cell, packed.

    Attributes:
      indices: of the scored rows in the file.
      skipped: rows left out because their gold label is not one of the task's.
      encoded: the sequences of each scored row: one for each label, or the prompt alone where the
        task has none and the model is to go on from it.
      rows: packed rows, as (item, sequence) pairs.
      shape: of a batch; there are as many as the rows need.
    """

    setting: Setting
    indices: list[int]
    skipped: int
    encoded: list[Encoded]
    rows: list[list[tuple[int, int]]]
    shape: Shape

    @property
    def packed(self) -> list[list[prefix_tree.Sequence]]:
        """The packed rows, each with its sequences sorted."""
        return [[self.encoded[i].sequences[j] for i, j in row] for row in self.rows]

    @property
    def micro_batches(self) -> dict[Shape, int]:
        """How many batches there are, by their shape."""
        return {self.shape: math.ceil(len(self.rows) / self.shape.rows)}

    def batches(self) -> Iterator[tuple[Batch, list[list[tuple[int, int]]]]]:
        """Batches of one shape, each with the (item, sequence) of every row's slots."""
        packed = self.packed
        _, num_rows, *sizes = self.shape
        for start in range(0, len(self.rows), num_rows):
            part = slice(start, start + num_rows)
            yield prefix_tree.build(packed[part], num_rows, *sizes), self.rows[part]


def max_length(config: config_lib.Config) -> tuple[str, int]:
    """The tokens that a prompt with a label may have, after the key that says so."""
    if config.eval.max_length:
        return "eval.max_length", config.eval.max_length
    return "data.max_length", config.data.max_length


def plan(setting: Setting, tokenizer: Encoder, config: config_lib.Config, shards: int = 1) -> Items:
    """Pack the first `eval.limit` rows of a cell, for batches that so many devices share.

    Raises:
      UserError: no row with a label of the task, an item too long, or a row length too short.
    """
    dataset, labels = setting.dataset.first(config.eval.limit), setting.dataset.task.labels
    indices = dataset.usable
    if not indices:
        raise UserError(
            f"{dataset.source}: none of the first {len(dataset.rows)} outputs is a label of task "
            f"{dataset.task.name}: {', '.join(labels)}; map them with data.labels, such as "
            f"VALUE={labels[0]}"
        )
    key, longest = max_length(config)
    prompter = Prompter(tokenizer, dataset.task, setting.template, longest, eos=False, key=key)
    answers = labels or ("",)
    encoded = prompter.encode(
        [Item(dataset.rows[i], setting.demos, answers, dataset.where(i)) for i in indices]
    )
    slots = [(i, j) for i in range(len(indices)) for j in range(len(answers))]
    sequences = [encoded[i].sequences[j] for i, j in slots]
    longest, row_length = prefix_tree.longest(sequences), config.data.row_length
    if row_length and row_length < longest:
        raise UserError(
            f"data.row_length={row_length}: an item of {dataset.name} has {longest} tokens; give "
            "at least that, or 0"
        )
    budget = Budget(shards, config.eval.batch_tokens, row_length)
    if not labels and not row_length:
        budget = budget._replace(row_length=_length_to_go_on_from(sequences, config))
    packed = packing.plan([sequences], budget)
    (shape,) = packed.shapes
    if not row_length:
        rounded = math.ceil(shape.row_length / ROW_MULTIPLE) * ROW_MULTIPLE
        shape = shape._replace(row_length=rounded)
    return Items(
        setting=setting,
        indices=indices,
        skipped=len(dataset.rows) - len(indices),
        encoded=encoded,
        rows=[[slots[k] for k in row] for row in packed.rows[0]],
        shape=_rounded(shape, generates=not labels),
    )


def _length_to_go_on_from(prompts: list[prefix_tree.Sequence], config: config_lib.Config) -> int:
    """The row length at which prompts and what follows them cost least."""
    shortest = math.ceil(prefix_tree.longest(prompts) / ROW_MULTIPLE)
    new_tokens = len(prompts) * config.eval.max_new_tokens

    def cost(length: int) -> float:
        rows = len(prefix_tree.pack(prompts, length))
        return length * (rows + new_tokens / KEYS_OF_A_TOKEN)

    lengths = [ROW_MULTIPLE * shortest * n for n in (1, 2, 3, 4)]
    within = [length for length in lengths if length <= config.eval.batch_tokens]
    return min(within or lengths[:1], key=cost)


def _rounded(shape: Shape, generates: bool) -> Shape:
    entries = shape.num_entries
    return shape._replace(
        num_entries=math.ceil(entries / PROMPTS_MULTIPLE) * PROMPTS_MULTIPLE
        if generates
        else _power_of_two(entries, FEWEST_LABEL_ENTRIES),
        num_key_blocks=math.ceil(shape.num_key_blocks / KEY_BLOCKS_MULTIPLE) * KEY_BLOCKS_MULTIPLE,
    )


def _power_of_two(least: int, smallest: int) -> int:
    size = smallest
    while size < least:
        size *= 2
    return size
