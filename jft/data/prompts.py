"""Rows of text as token sequences: the only place where a prompt is made, for training and scoring.

A prompt is the demonstrations, each with its output and a blank line, and the row in the task's
template. Whole texts are tokenized, never pieces: byte-level BPE merges across the seams.
"""

from __future__ import annotations

import string
from typing import NamedTuple, Protocol

import numpy as np

from jft.data.prefix_tree import TokenSequence, shared_length
from jft.errors import UserError
from jft.tasks import Task


class Encoder(Protocol):
    """What prompts need of a tokenizer."""

    eos_id: int

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Token ids of each text, with the tokenizer's own prefix."""
        ...


class Request(NamedTuple):
    """One prompt and the answers to predict after it.

    Attributes:
      row: the fields of the task.
      demos: the rows that stand before it, with their outputs.
      answers: one in training; every label in scoring.
      where: names the row in errors, such as `paws_train_2000.json row 7`.
    """

    row: dict[str, str]
    demos: tuple[dict[str, str], ...]
    answers: tuple[str, ...]
    where: str


class Encoded(NamedTuple):
    """An item as sequences.

    Attributes:
      sequences: one for each answer.
      whole: tokens that the longest of them has with the whole input.
    """

    sequences: list[TokenSequence]
    whole: int

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return _longest_of(self.sequences)

    @property
    def shortened(self) -> bool:
        """Whether the input lost its end."""
        return self.length < self.whole


def render(template: str, row: dict[str, str]) -> str:
    """The template with the row's fields filled in."""
    return template.format_map(row)


def context(template: str, demos: tuple[dict[str, str], ...]) -> str:
    """The demonstrations as they stand before a prompt."""
    return "".join(render(template, demo) + demo["output"] + "\n\n" for demo in demos)


class Prompter(NamedTuple):
    """Everything that turns items into sequences.

    Attributes:
      tokenizer: an `Encoder`.
      task: says which fields may be shortened.
      template: of `prompt_map.json`.
      max_length: longest sequence, in tokens, the end of sequence included.
      eos: whether the end of sequence is predicted after the answer, as in training.
      key: of the config that says `max_length`, for messages.
    """

    tokenizer: Encoder
    task: Task
    template: str
    max_length: int
    eos: bool
    key: str = "data.max_length"

    def encode(self, items: list[Request]) -> list[Encoded]:
        """The sequences of every item; an input too long loses its end, never the answer.

        Raises:
          UserError: an item that cannot hold its answer even with an empty input.
        """
        result = [Encoded(each, _longest_of(each)) for each in self._sequences(items)]
        long = [i for i, encoded in enumerate(result) if encoded.whole > self.max_length]
        shorter = self._shorten([items[i] for i in long])
        for i, sequences in zip(long, shorter, strict=True):
            result[i] = result[i]._replace(sequences=sequences)
        return result

    def _sequences(self, items: list[Request]) -> list[list[TokenSequence]]:
        sources = self._sources(items)
        fulls = [s + a for s, item in zip(sources, items, strict=True) for a in item.answers]
        ids = iter(self.tokenizer.encode(sources + fulls))
        source_ids = [next(ids) for _ in items]
        return [
            [self._sequence(source, next(ids), item) for _ in item.answers]
            for source, item in zip(source_ids, items, strict=True)
        ]

    def _sources(self, items: list[Request]) -> list[str]:
        """What stands before the answers of each item."""
        contexts: dict[int, str] = {}  # items share demonstrations by identity
        sources = []
        for item in items:
            if id(item.demos) not in contexts:
                contexts[id(item.demos)] = context(self.template, item.demos)
            sources.append(contexts[id(item.demos)] + render(self.template, item.row))
        return sources

    def _sequence(self, source: np.ndarray, full: np.ndarray, item: Request) -> TokenSequence:
        # Where the tokenizer merges the prompt's end with the answer's beginning, the merged token
        # is part of the answer: it is the first that the prompt does not determine.
        start = shared_length(source, full)
        if start == 0:
            raise UserError(
                f"{item.where}: nothing stands before the answer; add text to the prompt"
            )
        if self.eos:
            full = np.append(full, np.int32(self.tokenizer.eos_id))
        return TokenSequence(full, start)

    def _fits(self, sequences: list[TokenSequence]) -> bool:
        return _longest_of(sequences) <= self.max_length

    def _shorten(self, items: list[Request]) -> list[list[TokenSequence]]:
        """Bisect, all items at once, over the words that each input may keep."""
        words = [_word_ends(self.task, item.row) for item in items]
        low, high = [0] * len(items), [len(ends) - 1 for ends in words]

        best = self._without_input(items)
        while any(lo + 1 < hi for lo, hi in zip(low, high, strict=True)):
            middle = [(lo + hi) // 2 for lo, hi in zip(low, high, strict=True)]
            ends = [each[n] for each, n in zip(words, middle, strict=True)]
            for i, sequences in enumerate(self._cut(items, ends)):
                if self._fits(sequences):
                    low[i], best[i] = middle[i], sequences
                else:
                    high[i] = middle[i]
        return best

    def _cut(self, items: list[Request], ends: list[int]) -> list[list[TokenSequence]]:
        """The sequences of items of whose longest text so many characters are kept."""
        rows = [_keep(self.task, i.row, end) for i, end in zip(items, ends, strict=True)]
        return self._sequences([i._replace(row=r) for i, r in zip(items, rows, strict=True)])

    def _without_input(self, items: list[Request]) -> list[list[TokenSequence]]:
        result = self._cut(items, [0] * len(items))
        for item, sequences in zip(items, result, strict=True):
            if not self._fits(sequences):
                raise UserError(
                    f"{item.where}: {_longest_of(sequences)} tokens even with an empty input, but "
                    f"{self.key}={self.max_length}; raise it or use fewer shots"
                )
        return result


def template_fields(template: str, where: str) -> tuple[str, ...]:
    """The fields that a template asks for.

    Raises:
      UserError: it is malformed, or more than fields in braces.
    """
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"{where}: not a valid template: {error}") from None
    for name, form, conversion in parts:
        if form or conversion or not str(name).isidentifier():
            raise UserError(f"{where}: {{{name}}} must be the name of a field, and nothing else")
    return tuple(dict.fromkeys(str(name) for name, _, _ in parts))


def check_template(template: str, task: Task, where: str) -> None:
    """Check that a template uses the task's fields and no others.

    Raises:
      UserError: naming the field.
    """
    used = template_fields(template, where)
    unknown = [name for name in used if name not in task.fields]
    if unknown:
        raise UserError(
            f"{where}: template field {{{unknown[0]}}} is not one of task {task.name}: "
            f"{', '.join(task.fields)}"
        )
    missing = [name for name in task.texts if name not in used]
    if missing:
        raise UserError(f"{where}: the template lacks {{{missing[0]}}} of task {task.name}")


def _longest_of(sequences: list[TokenSequence]) -> int:
    return max(len(sequence.tokens) for sequence in sequences)


def _longest(task: Task, row: dict[str, str]) -> str:
    return max(task.texts, key=lambda name: len(row[name]))


def _word_ends(task: Task, row: dict[str, str]) -> list[int]:
    """Characters of the longest input up to each word's end, 0 first."""
    text = row[_longest(task, row)]
    ends = [i for i in range(1, len(text)) if text[i].isspace() and not text[i - 1].isspace()]
    # A text without spaces is cut between characters.
    return [0, *ends, len(text)] if ends else list(range(len(text) + 1))


def _keep(task: Task, row: dict[str, str], characters: int) -> dict[str, str]:
    name = _longest(task, row)
    return row | {name: row[name][:characters]}
