"""Test items as batches: what a model is to score or to continue branches from shared prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jft import config as config_lib
from jft.batch import Batch, Shape
from jft.data import packing, prefix_tree
from jft.data.eval_grid import Cell
from jft.data.packing import Budget
from jft.data.prompts import Encoded, Encoder, Prompter, Request
from jft.errors import UserError

# Sizes are rounded up to multiples, or to powers of two, so that few shapes are compiled for many
# cells: what costs little by much, rows by little.
ROW_MULTIPLE = 256
FEWEST_ENTRIES = 64
KEY_BLOCKS_MULTIPLE = 4
SHORTEST_PREFIX = 32
SLOT_MULTIPLE = 32
# Prompts that a device decodes in step, a multiple of the fewest: enough to make matrix products of
# matrix-vector ones.
FEWEST_SLOTS, MOST_SLOTS = 16, 64


class SlotSizes(NamedTuple):
    """Sizes of the KV cache that the prompts of a cell are continued in.

    Attributes:
      num_slots: R, over all devices.
      shards: parts that the rows, and the slots, are split into; a prompt goes into a slot of the
        shard that holds its row.
      slot_tokens: P of a slot.
      prompt_tokens: the most that a prompt may have after the shared prefix; the rest of a slot is
        for new tokens.
      prefix_tokens: tokens that all prompts of the cell share.
      prefix_size: T of the prefix cache: the shared prefix, and tokens that follow it in a row.
    """

    num_slots: int
    shards: int
    slot_tokens: int
    prompt_tokens: int
    prefix_tokens: int
    prefix_size: int


@dataclass(frozen=True, slots=True)
class PackedCell:
    """The items of one cell, packed.

    Attributes:
      indices: of the scored rows in the file.
      skipped: rows left out because their gold label is not one of the task's.
      encoded: the sequences of each scored row: one for each label, or the prompt alone where the
        task has none and the model is to go on from it.
      rows: packed rows, as (item, sequence) pairs.
      shape: of a batch; there are as many as the rows need.
      slots: where the model is to go on from the prompts; None where it scores labels.
    """

    setting: Cell
    indices: list[int]
    skipped: int
    encoded: list[Encoded]
    rows: list[list[tuple[int, int]]]
    shape: Shape
    slots: SlotSizes | None

    @property
    def packed(self) -> list[list[prefix_tree.TokenSequence]]:
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


def plan(
    setting: Cell, tokenizer: Encoder, config: config_lib.Config, shards: int = 1
) -> PackedCell:
    """Pack the first `eval.limit` rows of a cell, for batches that so many devices share.

    Raises:
      UserError: no row with a label of the task, an item too long, or a row length too short.
    """
    dataset, labels = setting.dataset.first(config.eval.limit), setting.dataset.task.labels
    indices = dataset.usable
    if not indices:
        raise UserError(
            f"{dataset.source}: none of the first {len(dataset.examples)} outputs is a label of "
            f"task {dataset.task.name}: {', '.join(labels)}; map them with data.labels, such as "
            f"VALUE={labels[0]}"
        )
    key, longest = max_length(config)
    prompter = Prompter(tokenizer, dataset.task, setting.template, longest, eos=False, key=key)
    answers = labels or ("",)
    encoded = prompter.encode(
        [Request(dataset.examples[i], setting.demos, answers, dataset.where(i)) for i in indices]
    )
    slots = [(i, j) for i in range(len(indices)) for j in range(len(answers))]
    sequences = [encoded[i].sequences[j] for i, j in slots]
    longest, row_length = prefix_tree.longest(sequences), config.data.row_length
    if row_length and row_length < longest:
        raise UserError(
            f"data.row_length={row_length}: an item of {dataset.name} has {longest} tokens; give "
            "at least that, or 0"
        )
    packed = packing.plan([sequences], Budget(shards, config.eval.batch_tokens, row_length))
    shape = _rounded(packed.shapes[0])
    if row_length:
        shape = shape._replace(row_length=packed.shapes[0].row_length)
    return PackedCell(
        setting=setting,
        indices=indices,
        skipped=len(dataset.examples) - len(indices),
        encoded=encoded,
        rows=[[slots[k] for k in row] for row in packed.rows[0]],
        shape=shape,
        slots=None if labels else _slot_sizes(sequences, config.eval, shards),
    )


def _slot_sizes(
    prompts: list[prefix_tree.TokenSequence], config: config_lib.Eval, shards: int
) -> SlotSizes:
    """Choose as many slots as there are prompts, within `eval.cache_tokens` and `MOST_SLOTS`."""
    in_order = prefix_tree.order(prompts)
    prefix = prefix_tree.shared_length(*(prompts[in_order[i]].tokens for i in (0, -1)))
    longest = prefix_tree.longest(prompts) - prefix
    slot_tokens = _multiple(longest + config.max_new_tokens, SLOT_MULTIPLE)
    wanted = _multiple(min(math.ceil(len(prompts) / shards), MOST_SLOTS), FEWEST_SLOTS)
    there_is_room_for = config.cache_tokens // slot_tokens // FEWEST_SLOTS * FEWEST_SLOTS
    return SlotSizes(
        num_slots=max(FEWEST_SLOTS, min(wanted, there_is_room_for)) * shards,
        shards=shards,
        slot_tokens=slot_tokens,
        prompt_tokens=slot_tokens - config.max_new_tokens,
        prefix_tokens=prefix,
        prefix_size=_power_of_two(prefix, SHORTEST_PREFIX),
    )


def _rounded(shape: Shape) -> Shape:
    no_trunk = shape.num_prefix_blocks % KEY_BLOCKS_MULTIPLE  # lists take what the trunk does not
    return shape._replace(
        row_length=_multiple(shape.row_length, ROW_MULTIPLE),
        num_entries=_power_of_two(shape.num_entries, FEWEST_ENTRIES),
        num_key_blocks=_multiple(shape.num_key_blocks + no_trunk, KEY_BLOCKS_MULTIPLE),
        num_prefix_blocks=shape.num_prefix_blocks - no_trunk,
    )


def _multiple(least: int, of: int) -> int:
    return math.ceil(least / of) * of


def _power_of_two(least: int, smallest: int) -> int:
    size = smallest
    while size < least:
        size *= 2
    return size
