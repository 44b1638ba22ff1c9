"""Datasets, and rows of the user's own that become one: by their form, or by their columns."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jft import config as config_lib
from jft.data.rows import forms, mappings, readers
from jft.data.rows.dataset_ref import DatasetRef, Part
from jft.data.rows.example_store import ExampleStore
from jft.errors import UserError
from jft.runtime.progress import Ticker
from jft.tasks import Example, Task, same_text

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Dataset(NamedTuple):
    """Examples of one task.

    Attributes:
      name: of the dataset, without `_train_2000`.
      task: the task.
      source: the file, or the reference that was read.
      own: whether the examples are the user's own, not of the suite.
      examples: in the order of the file; every field of the task and `output` are text.
      left_out: those after them, which were not asked for.
      parts: the name of each file that they are from, and how many rows it has; none of a file
        alone.
      read_as: what a public name made of its columns and labels, in words; empty if nothing.
    """

    name: str
    task: Task
    source: str
    own: bool
    examples: Sequence[Example]
    left_out: Sequence[Example] = ()
    read_as: str = ""
    parts: tuple[tuple[str, int], ...] = ()

    def where(self, index: int) -> str:
        """Name an example in errors."""
        name = self.source.rsplit("/", 1)[-1]
        for of_file, rows in self.parts:
            if index < rows:
                name = of_file
                break
            index -= rows
        return f"{name} row {index} (from 0)"

    @property
    def place(self) -> str:
        """The name of the set in reports: its file within the suite, or the user's reference."""
        return self.source if self.own else f"{self.task.name}/{Path(self.source).name}"

    @property
    def usable(self) -> list[int]:
        """The indices of the examples with a label of the task; all where the task has none."""
        labels = self.task.labels
        if not labels:
            return list(range(len(self.examples)))
        return [i for i, e in enumerate(self.examples) if e["output"] in labels]

    def first(self, limit: int) -> Dataset:
        """Keep the first `limit` examples; all for 0."""
        if not 0 < limit < len(self.examples):
            return self
        rest = self.examples[limit:]
        rest = [*rest, *self.left_out] if self.left_out else rest
        return self._replace(examples=self.examples[:limit], left_out=rest)


def is_own(ref: DatasetRef) -> bool:
    """Check whether a reference is to rows of the user's own, not to a set of the suite.

    Raises:
      UserError: it is to a file of a format that jft does not read.
    """
    if not ref.is_own and ref.path.is_file():
        formats = ", ".join(readers.FORMATS)
        raise UserError(f"{ref.key}={ref.text}: rows of your own come as {formats}, hf: or tfds:")
    return ref.is_own


def read_own(ref: DatasetRef, task: Task, data: config_lib.Data) -> Dataset:
    """Read rows of the user's own as examples of a task, or of the task of their form.

    Args:
      ref: to the rows.
      task: of the examples, unless the rows have another form.
      data: of the config.

    Raises:
      UserError: nothing is there, or rows that are not of the task.
    """
    parts: list[list] = []  # filled while the rows are read
    rows = _located(ref.read(), parts)
    first = next(rows)
    public, mapping = mappings.for_public_dataset(ref.name)
    if isinstance(first.row, dict) and {*task.fields, "output"} <= first.row.keys():
        mapping = mapping._replace(columns={})  # the public dataset's columns, renamed already
    if task.name == data.task and (data.fields or data.labels):
        public, mapping = "", mappings.configured(data.fields, data.labels)
    form, read_as = _form(ref, task, data, public, first.row), ""
    if form != forms.TASK:
        of_form, convert = forms.reader(form, first.row)
        if task.name == data.task and data.fields:
            raise UserError(f"data.fields: rows of the form {form} have columns of their own names")
    else:
        mapping.check(task, own=not public)
        read_as = f"{public}: {mapping}" if public and str(mapping) else ""
        of_form, convert = task, lambda row, where: mapping.apply(row, task, where)
    examples = ExampleStore(_examples(itertools.chain([first], rows), of_form, convert))
    found = Dataset(ref.name, of_form, ref.text, True, examples, read_as=read_as)
    return found._replace(parts=tuple((name, number) for name, number in parts))


def _form(ref: DatasetRef, task: Task, data: config_lib.Data, public: str, first: Any) -> str:
    """Decide on the form of rows: by the task before their name, `data.form`, or their columns."""
    named = forms.of_task(task.name)
    fitting = [name for name in named if name == data.form or forms.fits(name, first)]
    if ref.task:
        return (fitting or named or [forms.TASK])[0]
    if data.form != forms.AUTO:
        return data.form
    if fitting:
        return fitting[0]
    if public or (task.name == data.task and (data.template or data.fields)):
        return forms.TASK
    return forms.recognize(first, (*task.fields, "output"))


def fits(ref: DatasetRef, task: Task, data: config_lib.Data) -> bool:
    """Check by the first row whether rows of the user's own may be of a task."""
    row = next(iter(next(ref.read()).rows))
    if named := forms.of_task(task.name):
        return any(forms.fits(name, row) for name in named)
    if task.name == data.task and data.fields:  # which say where its columns are
        return True
    return forms.recognize(row, (*task.fields, "output")) == forms.TASK


class _Row(NamedTuple):
    where: str
    row: Any


def _located(files: Iterable[Part], parts: list[list]) -> Iterator[_Row]:
    """Name all rows, give each the columns of those before it, and count them by file.

    The name of each file and its count go into `parts`.
    """
    columns: dict[str, None] = {}
    ticker, number = Ticker("{n} rows read"), 0
    for name, rows in files:
        parts.append([name, 0])
        for i, row in enumerate(rows):
            if isinstance(row, dict):
                columns |= dict.fromkeys(row)
                row = columns | row
            yield _Row(f"{name} row {i} (from 0)", row)
            parts[-1][1] += 1
            number += 1
            ticker.show(number)


def _examples(
    rows: Iterable[_Row], task: Task, convert: Callable[[Any, str], Any]
) -> Iterator[Example]:
    """Make examples of rows, one after the other.

    Raises:
      UserError: rows that are not of the task; names the first, and how many there are.
    """
    faults, first, number = 0, "", 0
    for where, row in rows:
        number += 1
        try:
            example = _with_golds(convert(row, where))
            _check_example(example, task, where)
            yield example
        except UserError as error:
            first, faults = first or str(error), faults + 1
    if faults:
        raise UserError(first + f" ({faults} of {number} rows have a fault)" * (faults > 1))


def checked(dataset: Dataset) -> Dataset:
    """Check that every example has the fields of the task and an output, as text.

    Of several outputs the first is the output, and the others are in the field `golds`, as JSON.

    Raises:
      UserError: names the first that has not, and how many there are.
    """
    rows = (_Row(dataset.where(i), row) for i, row in enumerate(dataset.examples))
    return dataset._replace(examples=list(_examples(rows, dataset.task, lambda row, _: row)))


def _with_golds(example: Any) -> Any:
    if not isinstance(example, dict):
        return example
    value = example.get("output")
    if isinstance(value, dict):  # as in SQuAD
        value = value.get("text")
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        return example
    first, *others = dict.fromkeys(value)
    golds = {"golds": json.dumps(others, ensure_ascii=False)} if others else {}
    return example | {"output": first} | golds


def _check_example(example: object, task: Task, where: str) -> None:
    if not isinstance(example, dict):
        raise UserError(f"{where}: must be an object with {', '.join(task.fields)} and output")
    for name in (*task.fields, "output"):
        if name not in example:
            raise UserError(f"{where}: missing field {name!r} of task {task.name}")
        if example[name] is None or example[name] != example[name]:
            raise UserError(f"{where}: field {name!r} is missing ({example[name]}); fill it in")
        if not isinstance(example[name], str):
            kind = type(example[name]).__name__
            raise UserError(f"{where}: field {name!r} must be text, not {kind}")
    for name, value in example.items():
        if isinstance(value, str) and LONE_SURROGATE.search(value):
            raise UserError(f"{where}: field {name!r} holds half a character (a lone surrogate)")
    if not same_text(example["output"]):
        raise UserError(f"{where}: output is empty; an example needs an answer")
