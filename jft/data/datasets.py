"""Datasets: the paper's folder layout with its prompts, `mini`, and rows of your own.

ROOT/prompt_map.json                             a list of {task: template}
ROOT/<task>/<dataset>_train_<n>.json             a list of rows
ROOT/<task>/<dataset>_test_<n>.json
ROOT/<task>/few_shot/<dataset>_few_shot.json     demonstrations
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from pathlib import Path
from typing import NamedTuple

from jft import config as config_lib
from jft.data import mappings, prompts, readers
from jft.errors import UserError
from jft.tasks import TASKS, Example, Task

MINI = Path(__file__).parent / "mini"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Dataset(NamedTuple):
    """Rows of one task.

    Attributes:
      name: the dataset, without `_train_2000`.
      task: whose fields the rows have.
      source: the file, or what else was read.
      own: whether the rows are of one's own, not of the suite.
      rows: in file order; every field of the task and `output` are text.
    """

    name: str
    task: Task
    source: str
    own: bool
    examples: list[Example]

    def where(self, index: int) -> str:
        """What errors call a row."""
        return f"{self.source.rsplit('/', 1)[-1]} row {index} (from 0)"

    @property
    def place(self) -> str:
        """What reports call the set: the file within the suite, or the reference to one's own."""
        return self.source if self.own else f"{self.task.name}/{Path(self.source).name}"

    @property
    def usable(self) -> list[int]:
        """Indices of the rows whose output is one of the task's labels; all where it has none."""
        labels = self.task.labels
        return [i for i, row in enumerate(self.examples) if not labels or row["output"] in labels]

    def first(self, limit: int) -> Dataset:
        """The first `limit` rows; all for 0."""
        return self._replace(examples=self.examples[: limit or None])


class Suite(NamedTuple):
    """Where a config's data comes from: a folder in the paper's layout, and rows of one's own.

    Attributes:
      root: the folder.
      data: the section of the config.
      task: its task.
    """

    root: Path
    data: config_lib.Data
    task: Task

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks by name: the table's, and the config's."""
        return TASKS | {self.task.name: self.task}

    def template(self, task: Task, index: int, key: str = "data.prompt") -> str:
        """The task's prompt template of an index, which `key` of the config asks for.

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

    def training(self) -> Dataset:
        """The training set that `data.train` names.

        Raises:
          UserError: no such file (names the nearest), or rows that are not of the task.
        """
        train, task = self.data.train, self.task
        known = [path.stem for path in self.files(task, "train")]
        if not train:
            raise UserError(f"data.train is empty; {self.root / task.name} holds {_list(known)}")
        dataset = self._own("data.train", train, task)
        if dataset is None:
            path = self.root / task.name / f"{train}.json"
            if not path.is_file():
                others = [
                    t.name for t in TASKS.values() if (self.root / t.name / path.name).is_file()
                ]
                hint = f"; set data.task={others[0]}" if others else _nearest(train, known)
                raise UserError(f"data.train={train}: no file {path}{hint}")
            dataset = read(path, task)
        if self.data.examples > len(dataset.examples):
            raise UserError(
                f"data.examples={self.data.examples}: {dataset.source} holds "
                f"{len(dataset.examples)}; 0 takes all"
            )
        return dataset.first(self.data.examples)

    def test(self, name: str, key: str = "eval.datasets") -> Dataset:
        """The test set of this name: `paws`, `detection/paws`, `paws_test_500`, or `task:rows`.

        Args:
          name: one of `eval.datasets`; rows without a task before them are of the config's.
          key: that the name is a value of, for messages.
        """
        task, rest = self._split(key, name)
        own = self._own(key, rest, task)
        if own:
            return own
        task, path = self._find(key, rest, "test")
        return read(path, task)

    def for_training(self, name: str) -> Suite:
        """The suite whose training set is the one of this name, of whatever task.

        Args:
          name: as one of `study.train`: `detection/paws_train_2000`, or `task:rows`.

        Raises:
          UserError: no such training set, or several.
        """
        task, train = self._split("study.train", name)
        if not readers.is_reference(train):
            task, path = self._find("study.train", train, "train")
            train = path.stem
        data = dataclasses.replace(self.data, task=task.name, train=train)
        if task.name != self.data.task:  # these speak of the config's task
            data = dataclasses.replace(data, template="", fields=(), labels=(), demos="")
        return Suite(self.root, data, task)

    def files(self, task: Task, kind: str) -> list[Path]:
        """The folder's files of a task's sets of a kind, `train` or `test`."""
        return sorted((self.root / task.name).glob(f"*_{kind}_*.json"))

    def trainings(self) -> list[str]:
        """The names of all training sets, as `for_training` takes them."""
        return [
            f"{t.name}/{path.stem}" for t in self.tasks.values() for path in self.files(t, "train")
        ]

    def tests(self, *tasks: Task) -> list[str]:
        """The names of the tasks' test sets, as `test` takes them."""
        return [f"{task.name}/{path.stem}" for task in tasks for path in self.files(task, "test")]

    def demos(self, task: Task, name: str, shots: int, key: str = "data.shots") -> list[Example]:
        """All demonstrations of a dataset; none are needed, and none read, at 0 shots.

        Args:
          task: the dataset's.
          name: the dataset's, or a file's.
          shots: how many are needed.
          key: of the config that asks for them, for messages.

        Raises:
          UserError: no demonstration file, or fewer in it than `shots`.
        """
        if shots == 0:
            return []
        found = self.demo_set(task, name)
        if found is None:
            path = self._demo_file(task, name)
            known = sorted(p.stem for p in path.parent.glob("*_few_shot.json"))
            names = _list([stem.removesuffix("_few_shot") for stem in known])
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
        """Whether the suite has demonstrations of its dataset, which need not be read for that."""
        return self._demo_file(task, name).is_file()

    def demo_set(self, task: Task, name: str) -> Dataset | None:
        """The demonstrations of a dataset, as `demos`; None where there are none."""
        path = self._demo_file(task, name)
        own = self._own("data.demos", name, task)
        return own or (read(path, task) if path.is_file() else None)

    def _demo_file(self, task: Task, name: str) -> Path:
        return self.root / task.name / "few_shot" / f"{name}_few_shot.json"

    def _own(self, key: str, name: str, task: Task) -> Dataset | None:
        """Rows of one's own; None for the name of a set of the suite."""
        if not readers.is_reference(name):
            if Path(name).expanduser().is_file():
                kinds = ", ".join(readers.READERS)
                raise UserError(f"{key}={name}: rows of your own come as {kinds}, hf: or tfds:")
            return None
        raw = readers.read(name, key)
        mapping = mappings.for_public_dataset(readers.name_of(name))
        if isinstance(raw[0], dict) and {*task.fields, "output"} <= raw[0].keys():
            mapping = mapping._replace(columns={})  # the public dataset's columns, renamed already
        if task.name == self.task.name and (self.data.fields or self.data.labels):
            mapping = mappings.configured(self.data.fields, self.data.labels)
        dataset = Dataset(readers.name_of(name), task, name, True, raw)
        mapped = [mapping.apply(row, task, dataset.where(i)) for i, row in enumerate(raw)]
        return _checked(dataset._replace(examples=mapped))

    def _split(self, key: str, name: str) -> tuple[Task, str]:
        """The task that stands before rows of one's own, and the rest."""
        before, colon, after = name.partition(":")
        if before in self.tasks and colon:
            return self.tasks[before], after
        if colon and before not in readers.LIBRARIES and not Path(name).expanduser().exists():
            raise UserError(
                f"{key}={name}: no task {before}{_nearest(before, [*self.tasks])} (one of your own "
                "needs data.task, data.template and data.labels in every command)"
            )
        return self.task, name

    def _find(self, key: str, name: str, kind: str) -> tuple[Task, Path]:
        """The file of a set of the suite, by its name or its file's, with or without the task's."""
        files = [(t, path) for t in self.tasks.values() for path in self.files(t, kind)]
        found = [(task, path) for task, path in files if _is(name, task, path)]
        if not found:
            known = sorted(
                {path.stem if kind == "train" else readers.name_of(path.stem) for _, path in files}
            )
            raise UserError(f"{key}={name}: no such {kind} set{_nearest(name, known)}")
        if len(found) > 1:
            choice = " or ".join(f"{task.name}/{path.stem}" for task, path in found)
            raise UserError(f"{key}={name}: several {kind} sets; say {choice}")
        return found[0]


def suite(data: config_lib.Data) -> Suite:
    """What a config says of its data.

    Raises:
      UserError: no such folder, no `prompt_map.json` in it, or a task that nothing describes.
    """
    path = MINI if data.root == "mini" else Path(data.root).expanduser()
    if not path.is_dir():
        raise UserError(f"data.root={data.root}: no such folder; give one, or mini")
    if not data.template and not (path / "prompt_map.json").is_file():
        raise UserError(
            f"data.root={data.root}: no file {path / 'prompt_map.json'}; make it, a list such as "
            f'[{{"{data.task}": "..."}}] with prompt templates, or set data.template'
        )
    return Suite(path, data, _task(data))


def _task(data: config_lib.Data) -> Task:
    """The table's task, or one that a template and labels make."""
    task = TASKS.get(data.task)
    if task is None:
        if not data.template:
            raise UserError(
                f"data.task={data.task!r}: no such task{_nearest(data.task, [*TASKS])} (one of "
                "your own needs data.template)"
            )
        fields = prompts.template_fields(data.template, "data.template")
        return Task(data.task, fields, fields, mappings.label_names(data.labels))
    if data.template:
        prompts.check_template(data.template, task, "data.template")
    return task


def read(path: Path, task: Task) -> Dataset:
    """A set of a folder in the paper's layout.

    Raises:
      UserError: no such file, or rows that are not of the task.
    """
    found = readers.read(str(path), "data.root")
    return _checked(Dataset(readers.name_of(str(path)), task, str(path), False, found))


def _checked(dataset: Dataset) -> Dataset:
    for index, row in enumerate(dataset.examples):
        _check_row(row, dataset.task, dataset.where(index))
    return dataset


def _check_row(row, task: Task, where: str) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with {', '.join(task.fields)} and output")
    for name in (*task.fields, "output"):
        if name not in row:
            raise UserError(f"{where}: missing field {name!r} of task {task.name}")
        if not isinstance(row[name], str):
            raise UserError(f"{where}: field {name!r} must be text, not {type(row[name]).__name__}")
        if LONE_SURROGATE.search(row[name]):
            raise UserError(f"{where}: field {name!r} holds half a character (a lone surrogate)")
    if not row["output"]:
        raise UserError(f"{where}: output is empty; an example needs an answer")


def _is(name: str, task: Task, path: Path) -> bool:
    return name in (
        readers.name_of(str(path)),
        path.stem,
        f"{task.name}/{readers.name_of(str(path))}",
        f"{task.name}/{path.stem}",
    )


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there is {_list(known)}"


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
