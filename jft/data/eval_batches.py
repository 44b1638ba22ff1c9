"""The batches of an evaluation: rows of many cells in few shapes.

A row holds items of one cell. Cells whose items are scored in the same way share batches, so that
batches are full and few programs are compiled. Cells for which texts are generated do not: all
prompts in the slots of a KV cache share one prefix.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from jft import config as config_lib
from jft.batch import PackingRules, Shape
from jft.data import eval_cells, prefix_tree, rounding
from jft.data.eval_cells import EncodedCell
from jft.data.eval_grid import Cell
from jft.data.packed import PackedRows, SequenceId, in_order, pack_items
from jft.data.packing import Budget
from jft.data.prompting.prompter import PromptEncoder
from jft.data.prompting.prompts import Encoded
from jft.runtime.progress import say
from jft.tasks import RETENTION_TASKS

T = TypeVar("T")

# Sizes are rounded up to multiples, or to powers of two, so that few shapes are compiled for many
# cells: row lengths by little, since padding is computed, and what costs less by more.
ROW_MULTIPLE = 256
FEWEST_ENTRIES, MANY_ENTRIES = 64, 512
SHORTEST_PREFIX = 32
SLOT_MULTIPLE = 32
# Models that are scored alike, as a guess: they share what is compiled for one of them.
MODELS = 4
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
class PackedCells(PackedRows):
    """Cells that share batches: the items and rows of the first, then those of the second.

    Attributes:
      cells: one where texts are generated; all of one kind.
      slots: sizes of the KV cache; None where nothing is generated.
    """

    encoded: list[Encoded]
    cells: list[EncodedCell]
    slots: SlotSizes | None

    def only(self, wanted: Callable[[Cell], bool]) -> PackedCells:
        """Keep some of the cells, and the shape of the batches."""
        rows_of: list[list[list[SequenceId]]] = [[] for _ in self.cells]
        for row in self.rows:
            number, _ = self._find(row[0][0])
            rows_of[number].append([(self._find(item)[1], j) for item, j in row])
        kept = [
            (cell, rows)
            for cell, rows in zip(self.cells, rows_of, strict=True)
            if wanted(cell.cell)
        ]
        return _join(kept, self.shape, self.slots)

    def by_cell(
        self, found: Iterable[tuple[int, T]], advance: Callable[[Cell], None]
    ) -> Iterator[tuple[EncodedCell, list[T]]]:
        """Collect values of items, and yield each cell as soon as all of its values are there.

        Args:
          found: items, in any order, each with its value.
          advance: called with the cell of each.
        """
        values = [dict[int, T]() for _ in self.cells]
        for item, value in found:
            number, i = self._find(item)
            cell, of_cell = self.cells[number], values[number]
            advance(cell.cell)
            of_cell[i] = value
            if len(of_cell) == len(cell.encoded):
                yield cell, in_order(of_cell.items())

    def _find(self, item: int) -> tuple[int, int]:
        """Find the number of an item's cell, and the item's number in the cell."""
        ends = list(itertools.accumulate(len(cell.encoded) for cell in self.cells))
        number = bisect.bisect_right(ends, item)
        return number, item - (ends[number - 1] if number else 0)


@dataclass(frozen=True)
class Wanted:
    """Cells to encode and pack; two are equal where they would become the same batches.

    Attributes:
      sha256: of the rows, the prompts, the tokenizer and the config.
      shards: devices that share the rows of a batch.
      packing_rules: those of the model.
      cells, tokenizer, config: of an evaluation.
    """

    sha256: str
    shards: int
    packing_rules: PackingRules | None
    cells: list[Cell] = field(compare=False)
    tokenizer: PromptEncoder = field(compare=False)
    config: config_lib.Config = field(compare=False)


@functools.lru_cache(maxsize=1)
def plan_cells(wanted: Wanted) -> tuple[list[EncodedCell], list[PackedCells]]:
    """Encode and pack the cells of an evaluation.

    The last are kept: a study scores many models in one process, all of them alike.
    """
    config, tokenizer = wanted.config, wanted.tokenizer
    encoded = [eval_cells.encode_cell(cell, tokenizer, config) for cell in wanted.cells]
    return encoded, pack_cells(encoded, config, wanted.shards, wanted.packing_rules)


def pack_cells(
    cells: Sequence[EncodedCell],
    config: config_lib.Config,
    shards: int = 1,
    packing_rules: PackingRules | None = None,
) -> list[PackedCells]:
    """Pack the items of cells into rows, and those of one kind and shape into batches.

    Args:
      cells: of an evaluation.
      config: its config.
      shards: devices that share the rows of a batch.
      packing_rules: those of the model; None: not known.
    """
    if packing_rules:  # what is compiled for one model serves others that are scored alike
        of_each = packing_rules.shape_tokens // MODELS
        packing_rules = packing_rules._replace(shape_tokens=of_each)
    budget = Budget(shards, config.eval.batch_tokens, packing_rules=packing_rules)
    found: list[PackedCells] = []
    for alike in _by_kind(cells):
        found += _pack_alike(alike, config.eval, budget._replace(row_length=alike[0].row_length))
    return found


def pack_cell(
    cell: Cell,
    tokenizer: PromptEncoder,
    config: config_lib.Config,
    shards: int = 1,
    packing_rules: PackingRules | None = None,
) -> PackedCells:
    """Encode and pack a single cell; see `encode_cell` and `pack_cells`."""
    encoded = eval_cells.encode_cell(cell, tokenizer, config)
    (packed,) = pack_cells([encoded], config, shards, packing_rules)
    return packed


def _by_kind(cells: Sequence[EncodedCell]) -> list[list[EncodedCell]]:
    """Sort cells by what their programs and their rows have in common.

    Tasks of the panel stay apart: general text has one target a token, prompts share theirs.
    """
    found: dict[tuple[str, str], list[EncodedCell]] = {}
    for cell in cells:
        task = cell.cell.dataset.task
        of_panel = task.name if task.name in RETENTION_TASKS else ""
        found.setdefault((task.kind, of_panel), []).append(cell)
    return list(found.values())


def _pack_alike(
    cells: list[EncodedCell], config: config_lib.Eval, budget: Budget
) -> list[PackedCells]:
    """Pack cells of one kind; few of the shapes are distinct, and each has its own batches."""
    encoded = [each for cell in cells for each in cell.encoded]
    ends = list(itertools.accumulate(len(cell.encoded) for cell in cells))
    items = [range(end - len(cell.encoded), end) for cell, end in zip(cells, ends, strict=True)]
    of_shape: dict[tuple, list[tuple[EncodedCell, list[list[SequenceId]]]]] = {}
    for number, packed in enumerate(pack_items(encoded, items, budget)):
        cell, start = cells[number], items[number].start
        rows = [[(item - start, j) for item, j in row] for row in packed.rows]
        alone = number if eval_cells.generates(cell.cell) else None
        of_shape.setdefault((packed.shape, alone), []).append((cell, rows))
    found = []
    for (shape, alone), group in of_shape.items():
        slots = None if alone is None else _slot_sizes(cells[alone].encoded, config, budget)
        found.append(
            _join(group, _batch_shape(shape, sum(len(r) for _, r in group), budget), slots)
        )
    return found


def _join(
    cells: Iterable[tuple[EncodedCell, list[list[SequenceId]]]],
    shape: Shape,
    slots: SlotSizes | None,
) -> PackedCells:
    """Join cells, each with its rows of its own items."""
    joined = PackedCells([], [], shape, [], slots)
    for cell, rows in cells:
        start = len(joined.encoded)
        joined.rows.extend([(start + item, j) for item, j in row] for row in rows)
        joined.encoded.extend(cell.encoded)
        joined.cells.append(cell)
    return joined


def _batch_shape(shape: Shape, num_rows: int, budget: Budget) -> Shape:
    """Round the shape of rows up, and put as many into a batch as the budget allows."""
    shape = _rounded(shape, bool(budget.row_length))
    at_once = min(budget.tokens // shape.row_length, math.ceil(num_rows / budget.shards))
    shape = shape._replace(rows=budget.shards * max(1, at_once))
    return shape._replace(micro_batches=math.ceil(num_rows / shape.rows))


def _slot_sizes(encoded: list[Encoded], config: config_lib.Eval, budget: Budget) -> SlotSizes:
    """Choose as many slots as there are prompts, within `eval.cache_tokens` and `MOST_SLOTS`."""
    shards = budget.shards
    prompts = [each.sequences[0] for each in encoded]
    # Of sorted sequences, all share what the first and the last share.
    in_rows = [sequence for each in encoded for sequence in each.packed]
    in_order = prefix_tree.order(in_rows)
    after = budget.packing_rules.long_after if budget.packing_rules else 0
    lengths = [len(each.tokens) for each in prompts]
    grown = [n for n in lengths if n <= after < n + config.max_new_tokens]
    if grown:
        say(
            f"note: {len(grown)} prompts of up to {after} tokens grow beyond them: from there on "
            "this model has other rotary embeddings; their first tokens are not computed again"
        )
    prefix = prefix_tree.shared_length(*(in_rows[in_order[i]].tokens for i in (0, -1)))
    if budget.are_mixed(in_rows):
        prefix = 0  # the cache of a prefix holds what one of the rows has computed
    longest = prefix_tree.longest(prompts) - prefix
    slot_tokens = rounding.multiple(longest + config.max_new_tokens, SLOT_MULTIPLE)
    wanted = rounding.multiple(min(math.ceil(len(prompts) / shards), MOST_SLOTS), FEWEST_SLOTS)
    room = config.cache_tokens // slot_tokens // FEWEST_SLOTS * FEWEST_SLOTS
    return SlotSizes(
        num_slots=max(FEWEST_SLOTS, min(wanted, room)) * shards,
        shards=shards,
        slot_tokens=slot_tokens,
        prompt_tokens=slot_tokens - config.max_new_tokens,
        prefix_tokens=prefix,
        prefix_size=rounding.power_of_two(prefix, SHORTEST_PREFIX),
    )


def _rounded(shape: Shape, fixed: bool) -> Shape:
    """Round a shape up; the row length only if it is not fixed."""
    return rounding.key_blocks(
        shape._replace(
            row_length=shape.row_length
            if fixed
            else rounding.multiple(shape.row_length, ROW_MULTIPLE),
            num_entries=_entries(shape.num_entries),
        )
    )


def _entries(least: int) -> int:
    """Round loss entries up: few cost little, and of many each costs a pass through the head."""
    rounded = rounding.power_of_two(least, FEWEST_ENTRIES)
    return rounded if rounded <= MANY_ENTRIES else rounding.multiple(least, MANY_ENTRIES // 2)
