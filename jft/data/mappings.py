"""Which column is which field, and what labels are called, in data that was not made for jft."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jft.errors import UserError
from jft.tasks import Task

Column = str | Callable[[dict], Any]


class Mapping(NamedTuple):
    """How raw rows become a task's.

    Attributes:
      columns: for a field, or `output`, the column that holds it; others are called as the field.
      labels: for a value of the output its label; other values stay as they are.
    """

    columns: abc.Mapping[str, Column]
    labels: abc.Mapping[str, str]

    def apply(self, row: dict, task: Task, where: str) -> dict[str, Any]:
        """The row with the fields of the task.

        Raises:
          UserError: a column that the row lacks, or no row at all.
        """
        if not isinstance(row, dict):
            fields = ", ".join((*task.fields, "output"))
            raise UserError(f"{where}: must be an object with {fields}")
        mapped = {name: self._value(row, name, where) for name in (*task.fields, "output")}
        value = mapped["output"]
        if isinstance(value, bool | int | float):
            value = str(value)
        return mapped | {
            "output": self.labels.get(value, value) if isinstance(value, str) else value
        }

    def _value(self, row: dict, name: str, where: str):
        column = self.columns.get(name, name)
        if callable(column):
            try:
                return column(row)
            except (LookupError, TypeError, ValueError) as error:
                raise UserError(
                    f"{where}: not as the public dataset of this name has {name!r} ({error!r}); "
                    f"say in data.fields which column holds it, as {name}=COLUMN"
                ) from None
        if column not in row:
            raise UserError(
                f"{where}: no column {column!r} for the field {name!r}; there are "
                f"{', '.join(map(str, row))}. Say which in data.fields, as {name}=COLUMN"
            )
        return row[column]


def configured(fields: Sequence[str], labels: Sequence[str]) -> Mapping:
    """The mapping that `data.fields` and `data.labels` spell.

    Raises:
      UserError: a field that is not written `field=column`.
    """
    for pair in fields:
        if "=" not in pair:
            raise UserError(f"data.fields={pair}: is written field=column")
    values = [label for label in labels if "=" in label]
    return Mapping(_pairs(fields), _pairs(values))


def label_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of `data.labels`, each `label` or `value=label`, in order."""
    return tuple(dict.fromkeys(label.partition("=")[2] or label for label in labels))


def ready(name: str) -> Mapping:
    """The mapping of a public dataset that the paper uses; for others, columns are fields."""
    for known, mapping in READY.items():
        if name.lower() == known or name.lower().endswith("-" + known):
            return mapping
    return Mapping({}, {})


def _pairs(texts: Sequence[str]) -> dict[str, Any]:
    return dict(text.split("=", 1) for text in texts)


def _social_iqa_answer(row: dict) -> str:
    return row["answer" + " ABC"[int(row["label"])]]


def _tweet_qa_answer(row: dict) -> str:
    answers = row["Answer"]
    return answers if isinstance(answers, str) else answers[0]


SENTIMENT = {"0": "negative", "1": "positive"}
YES_NO = {"0": "no", "1": "yes"}
# The gold label -1, of which the annotators did not agree, becomes none of the task's.
NLI = {"0": "entailment", "1": "neutral", "2": "contradiction"}
PREMISE = {"input_1": "premise", "input_2": "hypothesis", "output": "label"}
SENTENCES = {"input_1": "sentence1", "input_2": "sentence2", "output": "label"}

# By the end of the name, in lower case: the same sets have the same columns on the hub and in TFDS.
READY = {
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
