"""Rows with choices of their own: a question, what may be chosen, and which of it is right."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jft.errors import UserError
from jft.tasks import Example

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# The columns of published sets.
QUESTIONS = ("input", "question", "prompt", "query", "ctx", "goal")
CONTEXTS = ("context", "passage", "article", "support")
CHOICES = ("choices", "options", "endings")
ANSWERS = ("answer", "answerKey", "answer_index", "answer_idx", "label", "gold")


class Choices(NamedTuple):
    """The content of a row.

    Attributes:
      question: its text.
      texts: what may be chosen.
      right: the index of the right choice.
    """

    question: str
    texts: list[str]
    right: int

    def by_text(self) -> Example:
        """Make an example whose answer is the text of a choice."""
        return {
            "input": self.question,
            "choices": json.dumps(self.texts, ensure_ascii=False),
            "output": self.texts[self.right],
        }

    def by_letter(self) -> Example:
        """Make an example that lists the choices by letters, and whose answer is a letter."""
        letters = LETTERS[: len(self.texts)]
        listed = [f"{letter}. {text}" for letter, text in zip(letters, self.texts, strict=True)]
        return {
            "input": self.question,
            "options": "\n".join(listed),
            "choices": json.dumps(list(letters)),
            "output": letters[self.right],
        }


def is_choice(row: Mapping[str, Any]) -> bool:
    """Check whether a row has columns of a question, of choices, and of an answer."""
    return all(_column(row, names) for names in (QUESTIONS, CHOICES, ANSWERS))


def read_choices(row: Mapping[str, Any], where: str) -> Choices:
    """Read a row with choices.

    Args:
      row: the choices are a list of texts, or texts with labels as `{"text": [...], "label":
        [...]}`; in CSV the JSON of either. The answer is an index (from 0), a letter (from A), a
        label, or the text of a choice.
      where: the row, for messages.

    Raises:
      UserError: names the column that is not as described.
    """
    name = _named(row, QUESTIONS)
    question = row.get(name)
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{where}: {name}={question!r:.80}: must be text")
    if context := _column(row, CONTEXTS):
        parts = row[context] if isinstance(row[context], list) else [row[context]]
        if not all(isinstance(part, str) for part in parts):
            raise UserError(f"{where}: {context}={row[context]!r:.80}: must be text")
        question = "\n".join([*parts, question])
    texts, labels = _texts(row, where)
    name = _named(row, ANSWERS)
    right = _place(row.get(name), texts, labels)
    answer = row.get(name)
    if isinstance(answer, str) and not labels and (text := answer.strip()) in texts:
        index = int(text) if text.isdecimal() else LETTERS.find(text) if len(text) == 1 else right
        if 0 <= index < len(texts) and index != right:
            raise UserError(
                f"{where}: {name}={answer!r}: is the text of one choice and the index or letter of "
                "another; give its index or letter so that it is no choice's text"
            )
    if not 0 <= right < len(texts):
        raise UserError(
            f"{where}: {name}={row.get(name)!r:.80}: must be the index of one of {len(texts)} "
            "choices (from 0), its letter (from A) or its text"
        )
    return Choices(question.rstrip(), texts, right)


def _texts(row: Mapping[str, Any], where: str) -> tuple[list[str], list[str]]:
    name = _named(row, CHOICES)
    value = row.get(name)
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    labels: Any = []
    if isinstance(value, Mapping):
        labels, value = [str(each) for each in value.get("label", [])], value.get("text")
    lists = all(
        isinstance(of, list) and all(isinstance(t, str) for t in of) for of in (value, labels)
    )
    if not lists or not isinstance(value, list):
        raise UserError(
            f"{where}: {name}={row.get(name)!r:.80}: must be a list of texts (in CSV, of JSON)"
        )
    stripped = [text.strip() for text in value]
    if not 2 <= len(set(stripped)) == len(stripped) <= len(LETTERS) or not all(stripped):
        raise UserError(
            f"{where}: {name}={value!r:.80}: must be 2 to {len(LETTERS)} different texts"
        )
    return stripped, labels


def _place(answer: object, texts: Sequence[str], labels: Sequence[str]) -> int:
    """Find the index of the right choice; -1 where there is none."""
    if isinstance(answer, str):
        text = answer.strip()
        for known in (labels, texts, [" ".join(each.split()) for each in texts]):
            if text in known:
                return list(known).index(text)
        if text.isdecimal():
            return int(text)
        return LETTERS.find(text.upper()) if len(text) == 1 else -1
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return -1
    return int(answer) if float(answer).is_integer() else -1  # Parquet makes 2.0 of 2


def _named(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Name the column that a message is about: a filled one, or else one that is there."""
    return _column(row, names) or next((name for name in names if name in row), names[0])


def _column(row: Mapping[str, Any], names: Iterable[str]) -> str:
    return next((name for name in names if row.get(name) is not None), "")
