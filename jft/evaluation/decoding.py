"""Generation: each prompt's most likely continuation, to its end or to the first blank line."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jft.batch import Batch
from jft.data.items import Items
from jft.data.items import Slots as SlotSizes
from jft.data.tokenizer import Tokenizer
from jft.errors import UserError
from jft.evaluation.runner import Runner
from jft.model.generate import (
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


class Group(NamedTuple):
    """Prompts of one batch that come in together: their items, and where they stand."""

    prefix: Prefix
    items: list[int]
    entries: list[int]
    paths: list[np.ndarray]


def generate(
    runner: Runner, items: Items, tokenizer: Tokenizer, advance: Callable[[int], None]
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
    runner: Runner, items: Items, stops: Stops, advance: Callable[[int], None]
) -> list[list[int]]:
    """The tokens that each item's prompt goes on with; none where no row holds it."""
    assert items.slots
    found: list[list[int]] = [[] for _ in items.encoded]
    groups = _groups(runner, items, items.slots.number // PART)
    waiting = [next(groups)]
    slots = _Slots(runner, items.slots, stops, waiting[0].prefix)
    while waiting or slots.busy:
        while waiting and len(slots.free) >= len(waiting[0].items):
            slots.admit(waiting.pop())  # a batch's trees are given up before those of the next come
            waiting += itertools.islice(groups, 1)
        for item, ids in slots.decode(len(waiting[0].items) if waiting else 0):
            found[item] = ids
            advance(1)
        if not waiting:
            slots.give_up()
    return found


def nobody(sizes: SlotSizes) -> Arrivals:
    """As many arrivals as come in together, of which no slot takes any."""
    number = sizes.number // PART
    return Arrivals(
        entry_I=np.zeros(number, np.int32),
        path_IP=np.zeros((number, sizes.own), np.int32),
        length_I=np.zeros(number, np.int32),
        slot_I=np.full(number, sizes.number, np.int32),
    )


class _Slots:
    """The slots of a cell, and the item that each goes on from."""

    def __init__(self, runner: Runner, sizes: SlotSizes, stops: Stops, prefix: Prefix):
        self._runner, self._sizes, self._stops = runner, sizes, stops
        self._fewest = sizes.number // PART
        self._trunk = runner.trunk(sizes.trunk_size, prefix, np.int32(sizes.trunk))
        self._state = runner.start(sizes.number, sizes.size)
        self._items: list[int | None] = [None] * sizes.number

    @property
    def free(self) -> list[int]:
        """The slots that no item has."""
        return [slot for slot, item in enumerate(self._items) if item is None]

    @property
    def busy(self) -> bool:
        """Whether any generation is under way."""
        return len(self.free) < len(self._items)

    def admit(self, group: Group) -> None:
        """Take prompts in, by arrays of a shape that is the same for all groups."""
        arrivals = nobody(self._sizes)
        arrivals.entry_I[: len(group.items)] = group.entries
        for i, (item, path) in enumerate(zip(group.items, group.paths, strict=True)):
            arrivals.path_IP[i, : len(path)] = path
            arrivals.length_I[i], arrivals.slot_I[i] = len(path), self.free[0]
            self._items[self.free[0]] = item
        self._state = self._runner.admit(self._state, group.prefix, arrivals, self._stops)

    def decode(self, wanted: int) -> list[tuple[int, list[int]]]:
        """Go on until so many slots are free, or enough of them to give some up.

        Returns:
          The items that have come to their end, with their tokens.

        Raises:
          UserError: the model gives no numbers.
        """
        narrow = len(self._items) == self._fewest
        active = len(self._items) - wanted if wanted else 0 if narrow else self._fewest
        trunk, stops = self._trunk, self._stops
        self._state = self._runner.decode(self._state, trunk, stops, np.int32(active))
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
        if len(self._items) > self._fewest:
            slots = sorted(range(len(self._items)), key=lambda slot: self._items[slot] is None)
            kept = slots[: self._fewest]
            self._state = self._runner.keep(self._state, np.array(kept, np.int32))
            self._items = [self._items[slot] for slot in kept]


def _groups(runner: Runner, items: Items, size: int) -> Iterator[Group]:
    """All prompts; a batch is run when it comes to its first."""
    trunk = items.slots.trunk if items.slots else 0
    for batch, rows in items.batches():
        prompts = _prompts(batch, rows, trunk)
        yield from _grouped(runner.prefill(batch), prompts, size)


def _prompts(batch: Batch, rows: list, trunk: int) -> list[tuple[int, int, np.ndarray]]:
    """Of each prompt its item, its entry, and its path after the trunk."""
    (_, row_length), (_, num_entries) = batch.tokens_BT.shape, batch.loss_index_BM.shape
    prompts = []
    for row, its_prompts in enumerate(rows):
        for slot, (item, _) in enumerate(its_prompts):
            end = batch.loss_index_BM[row, slot]
            (path,) = np.nonzero(batch.visible_until_BT[row, : end + 1] > end)
            prompts.append((item, row * num_entries + slot, row * row_length + path[trunk:]))
    return prompts


def _grouped(prefix: Prefix, prompts: list, size: int) -> Iterator[Group]:
    for begin in range(0, len(prompts), size):
        yield Group(prefix, *map(list, zip(*prompts[begin : begin + size], strict=True)))


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
