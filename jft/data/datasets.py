"""Datasets: the paper's folder layout with its prompts, `mini`, and examples of the user's own.

ROOT/prompt_map.json                             a list of {task: template}
ROOT/<task>/<dataset>_train_<n>.json             a list of examples
ROOT/<task>/<dataset>_test_<n>.json
ROOT/<task>/few_shot/<dataset>_few_shot.json     demonstrations
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jft import config as config_lib
from jft.data import mappings, prompts, readers
from jft.data.dataset_ref import DatasetRef, listing, nearest, set_name
from jft.errors import UserError, expand
from jft.tasks import TASKS, Example, Task, own_task, same_text

MINI = Path(__file__).parent / "mini"
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
      read_as: what a public name made of its columns and labels, in words; empty if nothing.
    """

    name: str
    task: Task
    source: str
    own: bool
    examples: list[Example]
    left_out: Sequence[Example] = ()
    read_as: str = ""

    def where(self, index: int) -> str:
        """Name an example in errors."""
        return f"{self.source.rsplit('/', 1)[-1]} row {index} (from 0)"

    @property
    def place(self) -> str:
        """The name of the set in reports: its file within the suite, or the user's reference."""
        return self.source if self.own else f"{self.task.name}/{Path(self.source).name}"

    @property
    def usable(self) -> list[int]:
        """The indices of the examples with a label of the task; all where the task has none."""
        labels = self.task.labels
        return [i for i, e in enumerate(self.examples) if not labels or e["output"] in labels]

    def first(self, limit: int) -> Dataset:
        """Keep the first `limit` examples; all for 0."""
        if not 0 < limit < len(self.examples):
            return self
        rest = [*self.examples[limit:], *self.left_out]
        return self._replace(examples=self.examples[:limit], left_out=rest)


class Suite(NamedTuple):
    """The data of a config: a folder in the paper's layout, and examples of the user's own.

    Attributes:
      root: the folder.
      data: the section of the config.
      task: the task of the config.
    """

    root: Path
    data: config_lib.Data
    task: Task

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks by name: those of the table, and the config's."""
        return TASKS | {self.task.name: self.task}

    def template(self, task: Task, index: int, key: str = "data.prompt") -> str:
        """Return the prompt template of a task; `key` of the config asks for this index.

        Raises:
          UserError: no such index, no template for the task, or fields that the task lacks.
        """
        if self.data.template and task.name == self.task.name:
            if index:
                raise UserError(f"{key}={index}: data.template is the only prompt, 0")
            return self.data.template
        path = self.root / "prompt_map.json"
        templates = readers.read_json(path)
        if not isinstance(templates, list) or not all(isinstance(t, dict) for t in templates):
            raise UserError(f'{path}: must be a list such as [{{"{task.name}": "..."}}]')
        if index >= len(templates):
            raise UserError(f"{key}={index}: {path} holds {len(templates)} prompts, from 0")
        template = templates[index].get(task.name)
        if not isinstance(template, str):
            raise UserError(
                f"{path}: prompt {index} has no template for task {task.name}; add one, or choose "
                f"another {key}"
            )
        prompts.check_template(template, task, f"{path} prompt {index}")
        return template

    def training_set(self) -> Dataset:
        """Read the training set that `data.train` names.

        Raises:
          UserError: no such file (names the nearest), or examples that are not of the task.
        """
        train, task = self.data.train, self.task
        known = [path.stem for path in self.files(task, "train")]
        if not train:
            raise UserError(f"data.train is empty; {self.root / task.name} holds {listing(known)}")
        dataset = self._own(DatasetRef.parse(train, "data.train"), task)
        if dataset is None:
            path = self.root / task.name / f"{train}.json"
            if not path.is_file():
                others = [
                    t.name for t in TASKS.values() if (self.root / t.name / path.name).is_file()
                ]
                hint = f"; set data.task={others[0]}" if others else nearest(train, known)
                raise UserError(f"data.train={train}: no file {path}{hint}")
            dataset = read_dataset(path, task)
        if self.data.examples > len(dataset.examples):
            raise UserError(
                f"data.examples={self.data.examples}: {dataset.source} holds "
                f"{len(dataset.examples)}; 0 takes all"
            )
        return dataset.first(self.data.examples)

    def test_set(self, name: str, key: str = "eval.datasets") -> Dataset:
        """Read a test set.

        Args:
          name: a reference.
          key: the config key of the name, for messages.

        Raises:
          UserError: no such test set, or several.
        """
        ref = DatasetRef.parse(name, key, self.tasks)
        own = self._own(ref, self._task_of(ref))
        if own:
            return own
        task, path = self._find(ref, "test")
        return read_dataset(path, task)

    def for_training(self, name: str) -> Suite:
        """Make the suite whose training set has this name, of any task.

        Args:
          name: a reference, one of `study.train`.

        Raises:
          UserError: no such training set, or several.
        """
        ref = DatasetRef.parse(name, "study.train", self.tasks)
        task, train = self._task_of(ref), ref.text
        if not ref.is_own:
            task, path = self._find(ref, "train")
            train = path.stem
        data = dataclasses.replace(self.data, task=task.name, train=train)
        if task.name != self.data.task:  # these speak of the config's task
            data = dataclasses.replace(data, template="", fields=(), labels=(), demos="")
        return Suite(self.root, data, task)

    def files(self, task: Task, kind: str) -> list[Path]:
        """List the files of a task's sets of a kind, `train` or `test`, in the folder."""
        return sorted((self.root / task.name).glob(f"*_{kind}_*.json"))

    def training_names(self) -> list[str]:
        """List all training sets of the folder, by the names that `for_training` takes."""
        return [
            f"{t.name}/{path.stem}" for t in self.tasks.values() for path in self.files(t, "train")
        ]

    def test_names(self, *tasks: Task) -> list[str]:
        """List the test sets of some tasks, by the names that `test_set` takes."""
        return [f"{task.name}/{path.stem}" for task in tasks for path in self.files(task, "test")]

    def demos(self, task: Task, name: str, shots: int, key: str = "data.shots") -> list[Example]:
        """Read all demonstrations of a dataset; none at 0 shots, where none are needed.

        Args:
          task: of the dataset.
          name: of the dataset, or a reference to the user's own.
          shots: the number needed.
          key: the config key that asks for them, for messages.

        Raises:
          UserError: no demonstration file, or fewer in it than `shots`.
        """
        if shots == 0:
            return []
        found = self.demo_set(task, name)
        if found is None:
            path = self._demo_file(task, name)
            known = sorted(p.stem for p in path.parent.glob("*_few_shot.json"))
            names = listing([stem.removesuffix("_few_shot") for stem in known])
            asked = f"data.demos={name}" if self.data.demos else f"{key}={shots}"
            raise UserError(
                f"{asked}: no demonstrations of {name} in {path}; set data.demos to a file of "
                f"yours{f', or to one of {names}' if known else ''}; or use 0 shots"
            )
        if shots > len(found.examples):
            raise UserError(
                f"{key}={shots}: {found.source} holds {len(found.examples)} demonstrations"
            )
        return found.examples

    def has_demos(self, task: Task, name: str) -> bool:
        """Check whether the suite has demonstrations of its dataset, without reading them."""
        return self._demo_file(task, name).is_file()

    def demo_set(self, task: Task, name: str) -> Dataset | None:
        """Read the demonstrations of a dataset; None where there are none."""
        path = self._demo_file(task, name)
        own = self._own(DatasetRef.parse(name, "data.demos"), task)
        return own or (read_dataset(path, task) if path.is_file() else None)

    def _demo_file(self, task: Task, name: str) -> Path:
        return self.root / task.name / "few_shot" / f"{name}_few_shot.json"

    def _task_of(self, ref: DatasetRef) -> Task:
        return self.tasks[ref.task] if ref.task else self.task

    def _own(self, ref: DatasetRef, task: Task) -> Dataset | None:
        """Read examples of the user's own; None where the reference is to a set of the suite."""
        if not ref.is_own:
            if ref.path.is_file():
                formats = ", ".join(readers.FORMATS)
                raise UserError(
                    f"{ref.key}={ref.text}: rows of your own come as {formats}, hf: or tfds:"
                )
            return None
        raw = _filled(ref.read())
        public, mapping = mappings.for_public_dataset(ref.name)
        if isinstance(raw[0], dict) and {*task.fields, "output"} <= raw[0].keys():
            mapping = mapping._replace(columns={})  # the public dataset's columns, renamed already
        if task.name == self.task.name and (self.data.fields or self.data.labels):
            public, mapping = "", mappings.configured(self.data.fields, self.data.labels)
        mapping.check(task, own=not public)
        read_as = f"{public}: {mapping}" if public and str(mapping) else ""
        dataset = Dataset(ref.name, task, ref.text, True, raw, read_as=read_as)
        examples = [mapping.apply(each, task, dataset.where(i)) for i, each in enumerate(raw)]
        return _checked(dataset._replace(examples=examples))

    def _find(self, ref: DatasetRef, kind: str) -> tuple[Task, Path]:
        """Find the file of a set of the suite, of a kind, `train` or `test`."""
        files = [(t, path) for t in self.tasks.values() for path in self.files(t, kind)]
        found = [(task, path) for task, path in files if ref.matches(task.name, path)]
        if not found:
            known = {path.stem if kind == "train" else set_name(path) for _, path in files}
            hint = nearest(ref.text, sorted(known))
            raise UserError(f"{ref.key}={ref.text}: no such {kind} set{hint}")
        if len(found) > 1:
            choice = " or ".join(f"{task.name}/{path.stem}" for task, path in found)
            raise UserError(f"{ref.key}={ref.text}: several {kind} sets; say {choice}")
        return found[0]


def suite(data: config_lib.Data) -> Suite:
    """Open the suite of a config.

    Raises:
      UserError: no such folder, no `prompt_map.json` in it, or a task that nothing describes.
    """
    path = MINI if data.root == "mini" else expand(data.root)
    if not path.is_dir():
        what = "a file, not a folder" if path.exists() else "no such folder"
        raise UserError(f"data.root={data.root}: {what}; give a folder, or mini")
    if not data.template and not (path / "prompt_map.json").is_file():
        raise UserError(
            f"data.root={data.root}: no file {path / 'prompt_map.json'}; make it, a list such as "
            f'[{{"{data.task}": "..."}}] with prompt templates, or set data.template'
        )
    return Suite(path, data, _config_task(data))


def _config_task(data: config_lib.Data) -> Task:
    """Look the task up in the table, or make it of the template and the labels."""
    task = TASKS.get(data.task)
    if task is None:
        if not data.template:
            raise UserError(
                f"data.task={data.task!r}: no such task{nearest(data.task, TASKS)}; one of "
                "your own needs data.template"
            )
        fields = prompts.task_fields(data.template, "data.template")
        labels = mappings.label_names(data.labels)
        return own_task(data.task, fields, labels)
    if data.template:
        prompts.check_template(data.template, task, "data.template")
    return task


def read_dataset(path: Path, task: Task) -> Dataset:
    """Read a file of a folder in the paper's layout.

    Raises:
      UserError: no such file, or examples that are not of the task.
    """
    raw = readers.read_file(path, f"data.root={path}")
    return _checked(Dataset(set_name(path), task, str(path), False, raw))


def _filled(raw: readers.Raw) -> readers.Raw:
    """Give every row all columns: what a row lacks that others have is a missing value."""
    columns: dict = dict.fromkeys(key for row in raw if isinstance(row, dict) for key in row)
    return [columns | row if isinstance(row, dict) else row for row in raw]


def _checked(dataset: Dataset) -> Dataset:
    errors = []
    for index, example in enumerate(dataset.examples):
        try:
            _check_example(example, dataset.task, dataset.where(index))
        except UserError as error:
            errors.append(str(error))
    if errors:
        more = f" ({len(errors)} of {len(dataset.examples)} rows have a fault)"
        raise UserError(errors[0] + more * (len(errors) > 1))
    return dataset


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
        if LONE_SURROGATE.search(example[name]):
            raise UserError(f"{where}: field {name!r} holds half a character (a lone surrogate)")
    if not same_text(example["output"]):
        raise UserError(f"{where}: output is empty; an example needs an answer")
