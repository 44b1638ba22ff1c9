"""Mappings from the columns and values of foreign data to the fields and labels of a task."""

from __future__ import annotations

import math
import re
from collections import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jft.errors import UserError
from jft.tasks import Task

Column = str | Callable[[dict], Any]


class Mapping(NamedTuple):
    """A mapping from raw examples to those of a task.

    Attributes:
      columns: the column of a field, or of `output`; a field that is missing here is in the column
        of its own name.
      labels: the label of a value of the output; other values stay as they are.
    """

    columns: abc.Mapping[str, Column]
    labels: abc.Mapping[str, str]

    def __str__(self) -> str:
        """Say what it changes, such as `output=label; 0=negative, 1=positive`."""
        columns = [f"{field}={c}" for field, c in self.columns.items() if isinstance(c, str)]
        labels = [f"{value}={label}" for value, label in self.labels.items()]
        return "; ".join(", ".join(pairs) for pairs in (columns, labels) if pairs)

    def apply(self, raw: dict, task: Task, where: str) -> dict[str, Any]:
        """Return the fields of the task and the output of a raw example.

        Raises:
          UserError: `raw` lacks a column, or is no object.
        """
        if not isinstance(raw, dict):
            fields = ", ".join((*task.fields, "output"))
            raise UserError(f"{where}: must be an object with {fields}")
        mapped = {name: self._value(raw, name, where) for name in (*task.fields, "output")}
        value = mapped["output"]
        # NaN stands for a missing value, which `datasets` refuses.
        if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            value = str(value)
        return mapped | {
            "output": self.labels.get(value, value) if isinstance(value, str) else value
        }

    def check(self, task: Task, own: bool = True) -> None:
        """Check that every field of a task has a column of its own.

        Args:
          task: the task.
          own: whether the user wrote the mapping, which then may have no other field.

        Raises:
          UserError: two would be one, such as the answer and an input; or a field is unknown.
        """
        taken: dict[Column, str] = {}
        for field in ("output", *task.fields):
            column = self.columns.get(field, field)
            if (other := taken.setdefault(column, field)) != field:
                so = ", so that the prompt would hold the answer" * (other == "output")
                raise UserError(
                    f"data.fields: {field} and {other} are both the column {column}{so}; give one "
                    "of them another column"
                )
        for field in self.columns.keys() - {"output", *task.fields} if own else ():
            known = ", ".join((*task.fields, "output"))
            raise UserError(
                f"data.fields={field}={self.columns[field]}: task {task.name} has the fields "
                f"{known}; which of them is in that column?"
            )

    def _value(self, raw: dict, name: str, where: str):
        column = self.columns.get(name, name)
        if callable(column):
            try:
                return column(raw)
            except (LookupError, TypeError, ValueError) as error:
                raise UserError(
                    f"{where}: not as the public dataset of this name has {name!r} ({error!r}); "
                    f"say in data.fields which column holds it, as {name}=COLUMN"
                ) from None
        if column not in raw:
            raise UserError(
                f"{where}: no column {column!r} for the field {name!r}; there are "
                f"{', '.join(map(str, raw))}. Say which in data.fields, as {name}=COLUMN"
            )
        return raw[column]


def configured(fields: Sequence[str], labels: Sequence[str]) -> Mapping:
    """Make the mapping that `data.fields` and `data.labels` spell.

    Raises:
      UserError: a field that is not written `field=column`.
    """
    columns = _pairs("data.fields", fields)
    for field, column in columns.items():
        if not column:
            raise UserError(f"data.fields={field}: is written field=column")
    values = _pairs("data.labels", labels)
    return Mapping(columns, {value: label for value, label in values.items() if label})


def label_names(labels: Sequence[str]) -> tuple[str, ...]:
    """List the labels of `data.labels`, each written `label` or `value=label`, in order.

    Raises:
      UserError: there is one alone.
    """
    names = tuple(dict.fromkeys(label or value for value, label in map(_pair, labels)))
    if len(names) == 1:
        raise UserError(
            f"data.labels={names[0]}: a single label, which every prediction would be; give two or "
            "more, or none where the output is text"
        )
    return names


def for_public_dataset(name: str) -> tuple[str, Mapping]:
    """Find a public dataset by its name; returns its key in `PUBLIC`, and its mapping.

    For a dataset that is not among them, the mapping changes nothing: columns are fields.
    """
    for known, mapping in PUBLIC.items():
        if name.lower() == known or name.lower().endswith("-" + known):
            return known, mapping
    return "", Mapping({}, {})


def _pair(text: str) -> tuple[str, str]:
    """Split `left=right`, in which `\\=` is an equals sign; `right` is empty if there is none."""
    left, *right = re.split(r"(?<!\\)=", text, maxsplit=1)
    return left.replace("\\=", "="), "".join(right).replace("\\=", "=")


def _pairs(key: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for left, right in map(_pair, texts):
        if found.get(left, right) != right:
            raise UserError(f"{key}: {left} is both {found[left]} and {right}; give one")
        found[left] = right
    return found


def _social_iqa_answer(raw: dict) -> str:
    return raw["answer" + " ABC"[int(raw["label"])]]


def _tweet_qa_answer(raw: dict) -> str:
    answers = raw["Answer"]
    return answers if isinstance(answers, str) else answers[0]


SENTIMENT = {"0": "negative", "1": "positive"}
YES_NO = {"0": "no", "1": "yes"}
# Items on which the annotators did not agree have the label -1, which is none of the task's.
NLI = {"0": "entailment", "1": "neutral", "2": "contradiction"}
PREMISE = {"input_1": "premise", "input_2": "hypothesis", "output": "label"}
SENTENCES = {"input_1": "sentence1", "input_2": "sentence2", "output": "label"}

# The public datasets of the paper, by the end of their name in lower case, since a dataset has the
# same columns on the hub and in TFDS.
PUBLIC = {
    "glue-sst2": Mapping({"input": "sentence", "output": "label"}, SENTIMENT),
    "sst2": Mapping({"input": "sentence", "output": "label"}, SENTIMENT),
    "yelp_polarity": Mapping({"input": "text", "output": "label"}, SENTIMENT),
    "yelp_polarity_reviews": Mapping({"input": "text", "output": "label"}, SENTIMENT),
    "amazon_polarity": Mapping({"input": "content", "output": "label"}, SENTIMENT),
    "glue-mnli": Mapping(PREMISE, NLI),
    "multi_nli": Mapping(PREMISE, NLI),
    "snli": Mapping(PREMISE, NLI),
    "glue-rte": Mapping(SENTENCES, {"0": "entailment", "1": "neutral"}),
    "glue-qqp": Mapping(
        {"input_1": "question1", "input_2": "question2", "output": "label"}, YES_NO
    ),
    "glue-mrpc": Mapping(SENTENCES, YES_NO),
    "paws-labeled_final": Mapping(SENTENCES, YES_NO),
    "paws_wiki": Mapping(SENTENCES, YES_NO),
    "xsum": Mapping({"input": "document", "output": "summary"}, {}),
    "cnn_dailymail": Mapping({"input": "article", "output": "highlights"}, {}),
    "cnn_dailymail-3.0.0": Mapping({"input": "article", "output": "highlights"}, {}),
    "xlsum-english": Mapping({"input": "text", "output": "summary"}, {}),
    "sciq": Mapping({"input": "support", "answer": "correct_answer", "output": "question"}, {}),
    "social_i_qa": Mapping(
        {"input": "context", "answer": _social_iqa_answer, "output": "question"}, {}
    ),
    "tweet_qa": Mapping({"input": "Tweet", "answer": _tweet_qa_answer, "output": "Question"}, {}),
}
