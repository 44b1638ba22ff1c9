"""Generation: each prompt's most likely continuation, to its end or to the first blank line."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jft.batch import Batch
from jft.checkpoints.tokenizer import Tokenizer
from jft.data.eval_batches import PackedCell
from jft.data.eval_batches import Slots as SlotSizes
from jft.errors import UserError
from jft.evaluation.compiled import Runner
from jft.model.decode import (
    BLANK_LINE,
    EMPTY,
    ENDS_LINE,
    HAS_TEXT,
    NONE,
    STARTS_LINE,
    TEXT_THEN_BLANK_LINE,
    Arrivals,
    Prefix,
    Stops,
)

# Prompts come in, and slots are given up, by this part of the slots: for fewer at a time, there
# would be more to start and to compile; for more, slots would stand idle.
PART = 4


class Prompt(NamedTuple):
    """A prompt of a batch: its item, and where it stands; see `Arrivals`."""

    item: int
    entry: int
    path: np.ndarray


class Group(NamedTuple):
    """Prompts of one batch that come in together, those of each shard of its rows."""

    prefix: Prefix
    shards: list[list[Prompt]]


def generate(
    runner: Runner, items: PackedCell, tokenizer: Tokenizer, advance: Callable[[int], None]
) -> list[str]:
    """The continuation of each item's prompt, without the white space around it.

    Args:
      runner: what generates.
      items: of one cell, each a prompt alone.
      tokenizer: of the model.
      advance: called with the number of items finished since.
    """
    stops = stops_of(tokenizer, runner.vocab_size)
    return [cut(tokenizer.decode(ids)) for ids in tokens(runner, items, stops, advance)]


def tokens(
    runner: Runner, items: PackedCell, stops: Stops, advance: Callable[[int], None]
) -> list[list[int]]:
    """The tokens that each item's prompt goes on with; none where no row holds it."""
    assert items.slots
    found: list[list[int]] = [[] for _ in items.encoded]
    groups = _groups(runner, items, items.slots)
    waiting = [next(groups)]
    slots = _Slots(runner, items.slots, stops, waiting[0].prefix)
    while waiting or slots.busy:
        while waiting and slots.have_room(waiting[0]):
            slots.admit(waiting.pop())  # a batch's trees are given up before those of the next come
            waiting += itertools.islice(groups, 1)
        for item, ids in slots.decode(waiting):
            found[item] = ids
            advance(1)
        if not waiting:
            slots.give_up()
    return found


def nobody(sizes: SlotSizes) -> Arrivals:
    """As many arrivals as come in together, of which no slot takes any."""
    number = _part(sizes) * sizes.shards
    return Arrivals(
        entry_I=np.zeros(number, np.int32),
        path_IP=np.zeros((number, sizes.own), np.int32),
        length_I=np.zeros(number, np.int32),
        slot_I=np.full(number, sizes.number, np.int32),
    )


def _part(sizes: SlotSizes) -> int:
    """Of the slots of a shard."""
    return max(1, sizes.number // sizes.shards // PART)


class _Slots:
    """The slots of a cell, and the item that each goes on from."""

    def __init__(self, runner: Runner, sizes: SlotSizes, stops: Stops, prefix: Prefix):
        self._runner, self._sizes, self._stops = runner, sizes, stops
        self._trunk = runner.trunk(sizes.trunk_size, prefix, np.int32(sizes.trunk))
        self._state = runner.start(sizes.number, sizes.size)
        self._items: list[int | None] = [None] * sizes.number

    @property
    def busy(self) -> bool:
        """Whether any generation is under way."""
        return any(item is not None for item in self._items)

    def have_room(self, group: Group) -> bool:
        """Whether every shard has a free slot for each of its prompts."""
        pairs = zip(self._shards, group.shards, strict=True)
        return all(len(self._free(shard)) >= len(prompts) for shard, prompts in pairs)

    def admit(self, group: Group) -> None:
        """Take prompts in, by arrays of a shape that is the same for all groups."""
        arrivals, part = nobody(self._sizes), _part(self._sizes)
        for number, (shard, prompts) in enumerate(zip(self._shards, group.shards, strict=True)):
            places = zip(prompts, self._free(shard), strict=False)
            for i, (prompt, slot) in enumerate(places, start=number * part):
                arrivals.entry_I[i], arrivals.slot_I[i] = prompt.entry, slot
                arrivals.path_IP[i, : len(prompt.path)] = prompt.path
                arrivals.length_I[i] = len(prompt.path)
                self._items[slot] = prompt.item
        self._state = self._runner.admit(self._state, group.prefix, arrivals, self._stops)

    def decode(self, waiting: list[Group]) -> list[tuple[int, list[int]]]:
        """Go on until there is room for whom is waiting, or enough of it to give some up.

        Returns:
          The items that have come to their end, with their tokens.

        Raises:
          UserError: the model gives no numbers.
        """
        share, part = len(self._items) // self._sizes.shards, _part(self._sizes)
        active = [0 if share == part else part] * self._sizes.shards
        if waiting:
            active = [share - len(prompts) for prompts in waiting[0].shards]
        trunk, stops = self._trunk, self._stops
        self._state = self._runner.decode(self._state, trunk, stops, np.array(active, np.int32))
        done_R, tokens_RS = map(np.asarray, (self._state.texts.done_R, self._state.texts.tokens_RS))
        if (tokens_RS == NONE).any():
            raise UserError(
                "the model gives scores that are no numbers; its weights are damaged, or too large "
                "for model.dtype"
            )
        ended = [(i, slot) for slot, i in enumerate(self._items) if i is not None and done_R[slot]]
        for _, slot in ended:
            self._items[slot] = None
        return [(item, tokens_RS[slot][tokens_RS[slot] >= 0].tolist()) for item, slot in ended]

    def give_up(self) -> None:
        """Keep the slots that are busy, and as many of the free as make a fixed number."""
        part = _part(self._sizes)
        if len(self._items) > part * self._sizes.shards:
            kept = []
            for shard in self._shards:
                kept += sorted(shard, key=lambda slot: self._items[slot] is None)[:part]
            self._state = self._runner.keep(self._state, np.array(kept, np.int32))
            self._items = [self._items[slot] for slot in kept]

    @property
    def _shards(self) -> list[range]:
        """The slots of each shard."""
        share = len(self._items) // self._sizes.shards
        return [range(first, first + share) for first in range(0, len(self._items), share)]

    def _free(self, shard: range) -> list[int]:
        return [slot for slot in shard if self._items[slot] is None]


def _groups(runner: Runner, items: PackedCell, sizes: SlotSizes) -> Iterator[Group]:
    """All prompts; a batch is run when it comes to its first."""
    for batch, rows in items.batches():
        share = len(batch.tokens_BT) // sizes.shards
        shards: list[list[Prompt]] = [[] for _ in range(sizes.shards)]
        for row, its_prompts in enumerate(rows):
            shards[row // share] += _prompts(batch, row, [item for item, _ in its_prompts], sizes)
        yield from _grouped(runner.prefill(batch), shards, _part(sizes))


def _prompts(batch: Batch, row: int, of_row: list[int], sizes: SlotSizes) -> Iterator[Prompt]:
    """Those of a row, which stand in it in the order of its items."""
    (_, length), (_, entries) = batch.tokens_BT.shape, batch.loss_index_BM.shape
    for place, item in enumerate(of_row):
        end = batch.loss_index_BM[row, place]
        (path,) = np.nonzero(batch.visible_until_BT[row, : end + 1] > end)
        yield Prompt(item, row * entries + place, row * length + path[sizes.trunk :])


def _grouped(prefix: Prefix, shards: list[list[Prompt]], part: int) -> Iterator[Group]:
    for begin in range(0, max(map(len, shards)), part):
        yield Group(prefix, [prompts[begin : begin + part] for prompts in shards])


def cut(text: str) -> str:
    """A text to its first blank line, without the white space around it."""
    return text.strip().split("\n\n")[0].rstrip()


def stops_of(tokenizer: Tokenizer, vocab_size: int) -> Stops:
    """What of every token's text matters to where a generation ends."""
    bits = np.zeros(vocab_size, np.uint8)
    for token, text in enumerate(tokenizer.token_texts()[:vocab_size]):
        # Half a character may be white space once it is whole.
        has_text = bool(text.replace("\N{REPLACEMENT CHARACTER}", "").strip())
        bits[token] = (
            HAS_TEXT * has_text
            | BLANK_LINE * ("\n\n" in text)
            | TEXT_THEN_BLANK_LINE * (has_text and "\n\n" in text.lstrip())
            | STARTS_LINE * text.startswith("\n")
            | ENDS_LINE * text.endswith("\n")
            | EMPTY * (not text)
        )
    return Stops(np.array([tokenizer.eos_id], np.int32), bits)
