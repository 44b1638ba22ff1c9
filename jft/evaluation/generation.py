"""Generation on the host: which prompt goes into which slot, when decoding stops, and the texts.

Each prompt is continued with the most likely tokens, to its end or to the first blank line. Six
prompts in four slots of one device, where groups have one prompt each:

    slots                0   1   2   3
    insert               p0  p1  p2  p3    group by group; p4 and p5 are left
    p1 ends              p0  p4  p2  p3    decoding stops as soon as the next group fits
    p0 ends              p5  p4  p2  p3    no prompts are left
    p2, p3 and p4 end    p5                decoding stops at one group, which is kept; p5 ends last
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jft.batch import Array, Batch, sees
from jft.checkpoints.tokenizer import Tokenizer
from jft.data.eval_batches import PackedCells, SlotSizes
from jft.data.packed import SequenceId, sum_by_sequence
from jft.data.prompting import chat_prompts
from jft.data.prompting.chat_template import ChatTemplate
from jft.errors import UserError
from jft.evaluation.compiled import CompiledModel
from jft.model.decode import (
    BLANK_LINE,
    EMPTY,
    ENDS_LINE,
    HAS_TEXT,
    NOT_FINITE,
    STARTS_LINE,
    TEXT_THEN_BLANK_LINE,
    NewPrompts,
    PrefilledBatch,
    Stops,
)

# Groups that the slots of a shard take. With more of them, decoding would stop more often; with
# fewer, slots whose generations have ended would be idle for longer.
SLOT_GROUPS = 4


class Prompt(NamedTuple):
    """A prompt of a batch: its item of the cell, and where it is; see `NewPrompts`."""

    item: int
    entry: int
    path: np.ndarray


class PromptGroup(NamedTuple):
    """Prompts of one batch that are inserted together, a list for each shard of its rows."""

    prefilled: PrefilledBatch
    shards: list[list[Prompt]]


class Prefilled(NamedTuple):
    """A batch of prompts, with the log-probabilities of its targets, and its rows."""

    batch: Batch
    logprob_BM: Array
    rows: list[list[SequenceId]]


class Generation(NamedTuple):
    """A prompt's continuation.

    Attributes:
      text: stripped of white space; of prompts in plain text up to its first blank line.
      tokens: how many were generated, also those after the blank line.
      reference: the log-probability of the item's reference after the prompt; None without one.
    """

    text: str
    tokens: int
    reference: float | None


def generate(
    model: CompiledModel, packed: PackedCells, tokenizer: Tokenizer
) -> Iterator[tuple[int, Generation]]:
    """Continue the prompt of every item, and yield the items as their generations end.

    An item also waits for its reference, which may be in a later batch than its prompt.

    Args:
      model: generates.
      packed: items of one cell, each a prompt, with a reference or without.
      tokenizer: of the model.
    """
    whole = packed.cells[0].cell.chat
    stops, references = stops_of(tokenizer, model.vocab_size, whole), dict[int, float]()
    cut, unread = str.strip if whole else first_paragraph, list[Prefilled]()
    ended: dict[int, list[int]] = {}
    for ending in generate_tokens(model, packed, stops, unread):
        ended.update([ending])
        while unread:
            for (item, sequence), value in sum_by_sequence(*unread.pop()):
                if sequence:
                    references[item] = float(value)
        known = [i for i in ended if packed.encoded[i].reference is None or i in references]
        for item in known:
            ids = ended.pop(item)
            yield item, Generation(cut(tokenizer.decode(ids)), len(ids), references.get(item))


def generate_tokens(
    model: CompiledModel,
    packed: PackedCells,
    stops: Stops,
    prefilled: list[Prefilled] | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Continue the prompt of every item; yields the items with their token ids.

    Batches that have been prefilled are put into `prefilled`, each before one of its items comes.
    """
    assert packed.slots
    groups = _groups(model, packed, packed.slots, [] if prefilled is None else prefilled)
    pending = [next(groups)]  # the next group, or nothing
    slots = _Slots(model, packed.slots, stops, pending[0].prefilled)
    while pending or slots.busy:
        while pending and slots.have_room(pending[0]):
            # No reference to the group is left when the next batch is computed, so that the device
            # holds the keys and values of one batch at a time.
            slots.insert(pending.pop())
            pending += itertools.islice(groups, 1)
        yield from slots.decode(pending)
        if not pending:
            slots.compact()


def no_prompts(sizes: SlotSizes) -> NewPrompts:
    """Create the arrays of a group, of which no place is used."""
    number = _group_size(sizes) * sizes.shards
    return NewPrompts(
        entry_I=np.zeros(number, np.int32),
        path_IP=np.zeros((number, sizes.prompt_tokens), np.int32),
        length_I=np.zeros(number, np.int32),
        slot_I=np.full(number, sizes.num_slots, np.int32),
    )


def _group_size(sizes: SlotSizes) -> int:
    """Compute the number of prompts of a shard that are inserted together."""
    return max(1, sizes.num_slots // sizes.shards // SLOT_GROUPS)


class _Slots:
    """The slots of a cell, and the item that each is generating for."""

    def __init__(
        self, model: CompiledModel, sizes: SlotSizes, stops: Stops, prefilled: PrefilledBatch
    ):
        self._model, self._sizes, self._stops = model, sizes, stops
        length = np.array(sizes.prefix_tokens, np.int32)
        self._prefix = model.prefix_cache(sizes.prefix_size, prefilled, length)
        self._state = model.init_slots(sizes.num_slots, sizes.slot_tokens)
        self._items: list[int | None] = [None] * sizes.num_slots

    @property
    def busy(self) -> bool:
        """True while any generation is unfinished."""
        return any(item is not None for item in self._items)

    def have_room(self, group: PromptGroup) -> bool:
        """Check whether every shard has a free slot for each of its prompts."""
        pairs = zip(self._shards, group.shards, strict=True)
        return all(len(self._free(shard)) >= len(prompts) for shard, prompts in pairs)

    def insert(self, group: PromptGroup) -> None:
        """Insert prompts into free slots, by arrays of one shape for all groups."""
        new, size = no_prompts(self._sizes), _group_size(self._sizes)
        for number, (shard, prompts) in enumerate(zip(self._shards, group.shards, strict=True)):
            pairs = zip(prompts, self._free(shard), strict=False)
            for i, (prompt, slot) in enumerate(pairs, start=number * size):
                new.entry_I[i], new.slot_I[i] = prompt.entry, slot
                new.path_IP[i, : len(prompt.path)] = prompt.path
                new.length_I[i] = len(prompt.path)
                self._items[slot] = prompt.item
        self._state = self._model.insert(self._state, group.prefilled, new, self._stops)

    def decode(self, pending: list[PromptGroup]) -> list[tuple[int, list[int]]]:
        """Generate until the pending group fits, or, without one, until `compact` is due.

        Returns:
          The items whose generations have ended, with their tokens.

        Raises:
          UserError: the model gives no numbers.
        """
        shard_slots, size = len(self._items) // self._sizes.shards, _group_size(self._sizes)
        max_active = [0 if shard_slots == size else size] * self._sizes.shards
        if pending:
            max_active = [shard_slots - len(prompts) for prompts in pending[0].shards]
        self._state = self._model.decode(
            self._state, self._prefix, self._stops, np.array(max_active, np.int32)
        )
        generated = self._state.generated
        done_R, tokens_RO = map(np.asarray, (generated.done_R, generated.tokens_RO))
        if (tokens_RO == NOT_FINITE).any():
            raise UserError(
                "the model gives scores that are no numbers; its weights are damaged, or too large "
                "for model.dtype"
            )
        ended = [(i, slot) for slot, i in enumerate(self._items) if i is not None and done_R[slot]]
        for _, slot in ended:
            self._items[slot] = None
        return [(item, tokens_RO[slot][tokens_RO[slot] >= 0].tolist()) for item, slot in ended]

    def compact(self) -> None:
        """Keep one group of slots of each shard: those in use, and free ones up to that number."""
        size = _group_size(self._sizes)
        if len(self._items) > size * self._sizes.shards:
            kept = []
            for shard in self._shards:
                kept += sorted(shard, key=lambda slot: self._items[slot] is None)[:size]
            self._state = self._model.compact(self._state, np.array(kept, np.int32))
            self._items = [self._items[slot] for slot in kept]

    @property
    def _shards(self) -> list[range]:
        """The slots of each shard."""
        size = len(self._items) // self._sizes.shards
        return [range(first, first + size) for first in range(0, len(self._items), size)]

    def _free(self, shard: range) -> list[int]:
        return [slot for slot in shard if self._items[slot] is None]


def _groups(
    model: CompiledModel, packed: PackedCells, sizes: SlotSizes, batches: list[Prefilled]
) -> Iterator[PromptGroup]:
    """Yield all prompts in groups; a batch is computed when its first group is asked for."""
    for batch, rows in packed.batches():
        shard_rows = len(batch.tokens_BT) // sizes.shards
        shards: list[list[Prompt]] = [[] for _ in range(sizes.shards)]
        for row, pairs in enumerate(rows):
            shards[row // shard_rows] += _prompts(batch, row, packed, pairs, sizes)
        prefilled = model.prefill(batch)
        batches.append(Prefilled(batch, prefilled.logprob_BM, rows))
        yield from _split(prefilled, shards, _group_size(sizes))
        del prefilled  # before the next batch is computed


def _prompts(
    batch: Batch, row: int, packed: PackedCells, pairs: list[SequenceId], sizes: SlotSizes
) -> Iterator[Prompt]:
    """Yield the prompts of a row, each with its loss entry; references have theirs between them."""
    (_, length), (_, entries) = batch.tokens_BT.shape, batch.loss_index_BM.shape
    for (item, sequence), (entry, *_) in zip(pairs, packed.entries(pairs), strict=True):
        if sequence:
            continue
        end = batch.loss_index_BM[row, entry]
        # The prompt's tokens are those that its last token sees: the path from the root.
        (path,) = np.nonzero(sees(end, np.arange(length), batch.visible_until_BT[row]))
        own_path = row * length + path[sizes.prefix_tokens :]
        yield Prompt(item, row * entries + entry, own_path)


def _split(
    prefilled: PrefilledBatch, shards: list[list[Prompt]], size: int
) -> Iterator[PromptGroup]:
    for begin in range(0, max(map(len, shards)), size):
        yield PromptGroup(prefilled, [prompts[begin : begin + size] for prompts in shards])


def first_paragraph(text: str) -> str:
    """Cut a text at its first blank line, and strip it of white space."""
    return text.strip().split("\n\n")[0].rstrip()


def stops_of(tokenizer: Tokenizer, vocab_size: int, whole: bool = False) -> Stops:
    """Find the ids and the texts of tokens that end a generation.

    Args:
      tokenizer: the model's.
      vocab_size: V.
      whole: whether no blank line ends it, but any token that ends a turn of this model, or of its
        chat template.
    """
    bits = np.zeros(vocab_size, np.uint8)
    if whole:
        ids = set(tokenizer.special.eos_ids)
        if tokenizer.chat_template is not None:
            template = ChatTemplate(tokenizer.chat_template, tokenizer.special_spellings)
            ids |= chat_prompts.end_ids(template, tokenizer)
        return Stops(np.array(sorted(ids), np.int32), bits)
    for token, text in enumerate(tokenizer.token_texts()[:vocab_size]):
        # A token of half a character, which may be white space once it is whole, is no text.
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
