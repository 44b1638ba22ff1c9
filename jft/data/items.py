"""Test items as batches: what a model is to score or to continue branches from shared prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jft import config as config_lib
from jft.batch import Batch
from jft.data import prefix_tree
from jft.data.prompts import Encoded, Encoder, Item, Prompter
from jft.data.settings import Setting
from jft.errors import UserError

# Sizes are rounded up so that few shapes are compiled: to powers of two from these, and the prompts
# of a row, of which every one costs a step of decoding, to multiples.
SHORTEST_ROW = 512
FEWEST_LABEL_ENTRIES = 64
PROMPTS_MULTIPLE = 4


@dataclass(frozen=True, slots=True)
class Items:
    """The items of one cell, packed.

    Attributes:
      indices: of the scored rows in the file.
      skipped: rows left out because their gold label is not one of the task's.
      encoded: the sequences of each scored row: one for each label, or the prompt alone where the
        task has none and the model is to go on from it.
      rows: packed rows, as (item, sequence) pairs.
    """

    setting: Setting
    indices: list[int]
    skipped: int
    encoded: list[Encoded]
    rows: list[list[tuple[int, int]]]
    row_length: int
    num_entries: int

    @property
    def packed(self) -> list[list[prefix_tree.Sequence]]:
        """The packed rows, each with its sequences sorted."""
        return [[self.encoded[i].sequences[j] for i, j in row] for row in self.rows]

    def batch_rows(self, shards: int, tokens: int) -> int:
        """Rows of a batch: as many as fit, but no padding without end; few shapes to compile.

        Args:
          shards: how many devices share the rows of a batch.
          tokens: the most that a device takes at once; at least one row.
        """
        most = max(1, tokens // self.row_length)
        return shards * min(most, _power_of_two(math.ceil(len(self.rows) / shards), 1))

    def batches(self, num_rows: int) -> Iterator[tuple[Batch, list[list[tuple[int, int]]]]]:
        """Batches of `num_rows` rows, each with the (item, sequence) of every row's slots."""
        packed = self.packed
        for start in range(0, len(self.rows), num_rows):
            part = slice(start, start + num_rows)
            shape = (num_rows, self.row_length, self.num_entries)
            yield prefix_tree.build(packed[part], *shape), self.rows[part]


def max_length(config: config_lib.Config) -> tuple[str, int]:
    """The tokens that a prompt with a label may have, after the key that says so."""
    if config.eval.max_length:
        return "eval.max_length", config.eval.max_length
    return "data.max_length", config.data.max_length


def plan(setting: Setting, tokenizer: Encoder, config: config_lib.Config) -> Items:
    """Pack the first `eval.limit` rows of a cell.

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
    longest, row_length = max(len(each.tokens) for each in sequences), config.data.row_length
    if row_length and row_length < longest:
        raise UserError(
            f"data.row_length={row_length}: an item of {dataset.name} has {longest} tokens; give "
            "at least that, or 0"
        )
    row_length = row_length or _power_of_two(longest, SHORTEST_ROW)
    packed = prefix_tree.pack(sequences, row_length)
    entries = max(prefix_tree.entries([sequences[k] for k in row]) for row in packed)
    if labels:
        entries = _power_of_two(entries, FEWEST_LABEL_ENTRIES)
    else:
        entries = math.ceil(entries / PROMPTS_MULTIPLE) * PROMPTS_MULTIPLE
    return Items(
        setting=setting,
        indices=indices,
        skipped=len(dataset.rows) - len(indices),
        encoded=encoded,
        rows=[[slots[k] for k in row] for row in packed],
        row_length=row_length,
        num_entries=entries,
    )


def _power_of_two(least: int, smallest: int) -> int:
    size = smallest
    while size < least:
        size *= 2
    return size
