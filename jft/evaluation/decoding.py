"""Generation: each prompt's most likely continuation, to its end or to the first blank line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from jft.batch import Batch, Shape
from jft.data.items import Items
from jft.data.tokenizer import Tokenizer
from jft.evaluation.runner import Runner
from jft.model.generate import (
    BLANK_LINE,
    EMPTY,
    ENDS_LINE,
    HAS_TEXT,
    STARTS_LINE,
    TEXT_THEN_BLANK_LINE,
    Slots,
    Stops,
)

# Prompts that a device decodes in step: enough to make matrix products of matrix-vector ones.
PROMPTS = 128
# Their number is rounded up to a multiple of this, so that few shapes are compiled.
PROMPTS_MULTIPLE = 16


def generate(
    runner: Runner,
    items: Items,
    tokenizer: Tokenizer,
    advance: Callable[[int], None],
) -> list[str]:
    """The continuation of each item's prompt, without the white space around it.

    Args:
      runner: what generates.
      items: of one cell, each a prompt alone.
      tokenizer: of the model.
      advance: called with the number of items finished since.
    """
    texts = [""] * len(items.encoded)
    stops = stops_of(tokenizer, runner.vocab_size)
    for group in groups(items, runner.shards):
        prefixes = tuple(runner.prefill(batch) for batch, _ in group)
        rows = [rows for _, rows in group]
        slots, order = slots_of(rows, items.shape, runner.shards)
        tokens_RS = np.asarray(runner.decode(prefixes, slots, stops))
        for item, tokens in zip(order, tokens_RS, strict=False):
            texts[item] = cut(tokenizer.decode(tokens[tokens >= 0].tolist()))
        advance(len(order))
    return texts


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


def group_size(items: Items, shards: int) -> int:
    """How many batches decode together: as many as there is room for."""
    return max(1, PROMPTS * shards // (items.shape.rows * items.shape.num_entries))


def padded(prompts: int, shards: int) -> int:
    """Prompts that decode together, with those that only fill up the shape."""
    multiple = PROMPTS_MULTIPLE * shards
    return math.ceil(prompts / multiple) * multiple


Rows = list[list[tuple[int, int]]]
Order = list[int]


def groups(items: Items, shards: int) -> Iterator[list[tuple[Batch, Rows]]]:
    """Batches whose prompts decode together."""
    batches, size = items.batches(), group_size(items, shards)
    while group := list(itertools.islice(batches, size)):
        yield group


def slots_of(group: list[Rows], shape: Shape, shards: int) -> tuple[Slots, Order]:
    """Where the prompts of a group stand, and the item of each."""
    num_rows, num_slots = shape.rows, shape.num_entries
    places = [
        ((batch * num_rows + row) * num_slots + slot, item)
        for batch, rows in enumerate(group)
        for row, prompts in enumerate(rows)
        for slot, (item, _) in enumerate(prompts)
    ]
    num = padded(len(places), shards)
    prompt_R = np.zeros(num, np.int32)
    prompt_R[: len(places)] = [place for place, _ in places]
    rank_BM = np.zeros((len(group) * num_rows, num_slots), np.int32)
    rank_BM.reshape(-1)[prompt_R[: len(places)]] = np.arange(len(places))
    active_R = np.arange(num) < len(places)
    return Slots(prompt_R, rank_BM, active_R), [item for _, item in places]
