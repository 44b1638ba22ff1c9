"""The batches of a cell: test items whose prompts a model scores labels after, or continues."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from jft import config as config_lib
from jft.batch import Shape
from jft.data import checks, prefix_tree, token_checks
from jft.data.eval_grid import Cell
from jft.data.packed import PackedRows, pack_items
from jft.data.packing import Budget
from jft.data.prefix_tree import TokenSequence
from jft.data.prompts import Encoder, Prompter, Request, encode_labels
from jft.data.token_checks import LengthLimit
from jft.errors import UserError

# Sizes are rounded up to multiples, or to powers of two, so that few shapes are compiled for many
# cells: row lengths by little, since padding is computed, and what costs less by more.
ROW_MULTIPLE = 256
FEWEST_ENTRIES = 64
KEY_BLOCKS_MULTIPLE = 4
SHORTEST_PREFIX = 32
SLOT_MULTIPLE = 32
# Slots of a device, a multiple of the fewest: enough that decoding multiplies matrices with
# matrices, not with single vectors.
FEWEST_SLOTS, MOST_SLOTS = 16, 64


class SlotSizes(NamedTuple):
    """Sizes of the KV cache that the prompts of a cell are continued in.

    Attributes:
      num_slots: R, over all devices.
      shards: parts that the rows, and the slots, are split into; a prompt goes into a slot of the
        shard that holds its row.
      slot_tokens: P of a slot.
      prompt_tokens: the most that a prompt may have after the prefix of the cell; the rest of a
        slot is for new tokens.
      prefix_tokens: tokens that all prompts of the cell share.
      prefix_size: T of the prefix cache: `prefix_tokens`, and tokens that follow them in a row.
    """

    num_slots: int
    shards: int
    slot_tokens: int
    prompt_tokens: int
    prefix_tokens: int
    prefix_size: int


@dataclass(frozen=True, slots=True)
class PackedCell(PackedRows):
    """The items of one cell, packed.

    An item has one sequence for each label; or its prompt alone, to be continued, where the task
    has no labels.

    Attributes:
      cell: how the items are asked.
      indices: the indices in the dataset of the items.
      skipped: the number of examples left out: their output is not one of the labels, or they do
        not fit `max_length` even with an empty input.
      unfit: the indices of the latter.
      slots: sizes of the KV cache; None where labels are scored.
    """

    cell: Cell
    indices: list[int]
    skipped: int
    unfit: list[int]
    slots: SlotSizes | None


def max_length(config: config_lib.Config) -> tuple[str, int]:
    """Return the limit of prompts with their answers, in tokens, after its config key."""
    if config.eval.max_length:
        return "eval.max_length", config.eval.max_length
    return "data.max_length", config.data.max_length


def pack_cell(
    cell: Cell, tokenizer: Encoder, config: config_lib.Config, shards: int = 1
) -> PackedCell:
    """Pack the first `eval.limit` examples of a cell, for batches split over `shards` devices.

    Raises:
      UserError: more than a few examples without a label of the task or too long, or a row length
        too short.
    """
    dataset, labels = cell.dataset.first(config.eval.limit), cell.dataset.task.labels
    indices = checks.labelled(dataset)
    key, limit = max_length(config)
    prompter = Prompter(tokenizer, dataset.task, cell.template, limit, eos=False)
    answers = labels or ("",)
    tried = encode_labels(
        prompter,
        [Request(dataset.examples[i], cell.demos, answers, dataset.where(i)) for i in indices],
    )
    unfit = {i: each.least for i, each in zip(indices, tried, strict=True) if not each.fits}
    token_checks.refuse_unfit(dataset, unfit, len(indices), LengthLimit(cell.shots, limit, key))
    encoded = [each for each in tried if each.fits]
    indices = [i for i, each in zip(indices, tried, strict=True) if each.fits]
    longest, row_length = max(each.length for each in encoded), config.data.row_length
    if row_length and row_length < longest:
        raise UserError(
            f"data.row_length={row_length}: an item of {dataset.name} has {longest} tokens; give "
            "at least that, or 0"
        )
    budget = Budget(shards, config.eval.batch_tokens, row_length)
    (packed,) = pack_items(encoded, [range(len(encoded))], budget)
    shape = _rounded(packed.shape)
    if row_length:
        shape = shape._replace(row_length=packed.shape.row_length)
    prompts = [each.sequences[0] for each in encoded]
    return PackedCell(
        encoded=encoded,
        rows=packed.rows,
        shape=shape,
        cell=cell,
        indices=indices,
        skipped=len(dataset.examples) - len(indices),
        unfit=list(unfit),
        slots=None if labels else _slot_sizes(prompts, config.eval, shards),
    )


def _slot_sizes(prompts: list[TokenSequence], config: config_lib.Eval, shards: int) -> SlotSizes:
    """Choose as many slots as there are prompts, within `eval.cache_tokens` and `MOST_SLOTS`."""
    # Of sorted sequences, all share what the first and the last share.
    in_order = prefix_tree.order(prompts)
    prefix = prefix_tree.shared_length(*(prompts[in_order[i]].tokens for i in (0, -1)))
    longest = prefix_tree.longest(prompts) - prefix
    slot_tokens = _multiple(longest + config.max_new_tokens, SLOT_MULTIPLE)
    wanted = _multiple(min(math.ceil(len(prompts) / shards), MOST_SLOTS), FEWEST_SLOTS)
    room = config.cache_tokens // slot_tokens // FEWEST_SLOTS * FEWEST_SLOTS
    return SlotSizes(
        num_slots=max(FEWEST_SLOTS, min(wanted, room)) * shards,
        shards=shards,
        slot_tokens=slot_tokens,
        prompt_tokens=slot_tokens - config.max_new_tokens,
        prefix_tokens=prefix,
        prefix_size=_power_of_two(prefix, SHORTEST_PREFIX),
    )


def _rounded(shape: Shape) -> Shape:
    # The prefix is cut to a multiple of KEY_BLOCKS_MULTIPLE blocks, and the blocks cut off go into
    # the lists of key blocks.
    listed = shape.num_prefix_blocks % KEY_BLOCKS_MULTIPLE
    return shape._replace(
        row_length=_multiple(shape.row_length, ROW_MULTIPLE),
        num_entries=_power_of_two(shape.num_entries, FEWEST_ENTRIES),
        num_key_blocks=_multiple(shape.num_key_blocks + listed, KEY_BLOCKS_MULTIPLE),
        num_prefix_blocks=shape.num_prefix_blocks - listed,
    )


def _multiple(least: int, of: int) -> int:
    return math.ceil(least / of) * of


def _power_of_two(least: int, smallest: int) -> int:
    size = smallest
    while size < least:
        size *= 2
    return size
