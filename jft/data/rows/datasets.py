"""Datasets: the paper's folder layout with its prompts, `mini`, and examples of the user's own.

ROOT/prompt_map.json                             a list of {task: template}
ROOT/<task>/<dataset>_train_<n>.json             a list of examples
ROOT/<task>/<dataset>_test_<n>.json
ROOT/<task>/few_shot/<dataset>_few_shot.json     demonstrations
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from jft import config as config_lib
from jft.data.rows import forms, mappings, own_rows, prompt_templates, readers
from jft.data.rows.dataset_ref import DatasetRef, listing, nearest, set_name
from jft.data.rows.own_rows import Dataset, checked
from jft.errors import UserError, expand
from jft.tasks import FORM_TASKS, TASKS, TEXT, Example, Task, own_task

MINI = Path(__file__).parents[1] / "mini"


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
        return TASKS | FORM_TASKS | {self.task.name: self.task}

    def template(self, task: Task, index: int, key: str = "data.prompt") -> str:
        """Return the prompt template of a task; `key` of the config asks for this index.

        Raises:
          UserError: no such index, no template for the task, or fields that the task lacks.
        """
        if self.data.template and task.name == self.task.name:
            if index:
                raise UserError(f"{key}={index}: data.template is the only prompt, 0")
            return self.data.template
        if task.name in FORM_TASKS:
            if index:
                raise UserError(f"{key}={index}: {task.name} has one prompt, 0")
            return forms.TEMPLATES[task.name]
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
        prompt_templates.check_template(template, task, f"{path} prompt {index}")
        return template

    def training_sets(self) -> list[Dataset]:
        """Read the training sets that `data.train` names.

        Raises:
          UserError: no such file (names the nearest), or examples that are not of the task.
        """
        if not self.data.train:
            known = [path.stem for path in self.files(self.task, "train")]
            raise UserError(
                f"data.train is empty; {self.root / self.task.name} holds {listing(known)}"
            )
        for i, name in enumerate(self.data.train):
            if name in self.data.train[:i]:
                raise UserError(f"data.train: {name} stands twice; give it a larger data.weights")
        return [self._training_set(name) for name in self.data.train]

    def _training_set(self, train: str) -> Dataset:
        ref = DatasetRef.parse(train, "data.train", self.tasks)
        dataset = self._own(ref, self._task_of(ref))
        if dataset is None:
            before, _, stem = ref.text.rpartition("/")
            task = self.tasks.get(before) or self._task_of(ref)
            path = self.root / task.name / f"{stem}.json"
            if not path.is_file():
                known = [path.stem for path in self.files(task, "train")]
                others = [
                    t.name for t in TASKS.values() if (self.root / t.name / path.name).is_file()
                ]
                hint = f"; set data.task={others[0]}" if others else nearest(stem, known)
                if ref.path.is_dir():
                    hint = f"; {train} is a folder: name its files, such as {train}/*.jsonl"
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
        data = dataclasses.replace(self.data, task=task.name, train=(train,))
        if task.name != self.data.task:  # these speak of the config's task
            data = dataclasses.replace(data, template="", fields=(), labels=(), demos=())
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
        if shots == 0 or task.kind == TEXT:  # texts are read as they are
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
        if found.task != task:
            raise UserError(
                f"data.demos={name}: holds rows of task {found.task.name}, but {task.name} has to "
                "be shown; give rows of its form"
            )
        if shots > len(found.examples):
            raise UserError(
                f"{key}={shots}: {found.source} holds {len(found.examples)} demonstrations"
            )
        return list(found.examples)

    def demos_of(self, dataset: Dataset) -> str:
        """Name the demonstrations of a dataset: `data.demos` where these fit, or its own."""
        return self.given_demos(dataset.task, dataset.own) or dataset.name

    def given_demos(self, task: Task, own: bool = False) -> str:
        """Return the first of `data.demos` that fits a task; empty where none does.

        Files fit by their columns, sets of the suite the config's task and the user's own rows.
        """
        for name in self.data.demos:
            ref = DatasetRef.parse(name, "data.demos", self.tasks)
            if ref.task or not ref.is_own:
                fits = own or task.name == (ref.task or self.data.task)
            else:
                fits = own_rows.fits(ref, task, self.data)
            if fits:
                return name
        return ""

    def has_demos(self, task: Task, name: str) -> bool:
        """Check whether the suite has demonstrations of its dataset, without reading them."""
        return self._demo_file(task, name).is_file()

    def demo_set(self, task: Task, name: str) -> Dataset | None:
        """Read the demonstrations of a dataset; None where there are none."""
        path = self._demo_file(task, name)
        ref = DatasetRef.parse(name, "data.demos", self.tasks)
        own = self._own(ref if ref.task else ref._replace(task=task.name), task)
        return own or (read_dataset(path, task) if path.is_file() else None)

    def _demo_file(self, task: Task, name: str) -> Path:
        return self.root / task.name / "few_shot" / f"{name}_few_shot.json"

    def _task_of(self, ref: DatasetRef) -> Task:
        return self.tasks[ref.task] if ref.task else self.task

    def _own(self, ref: DatasetRef, task: Task) -> Dataset | None:
        """Read examples of the user's own; None where the reference is to a set of the suite."""
        return own_rows.read_own(ref, task, self.data) if own_rows.is_own(ref) else None

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
    task = (TASKS | FORM_TASKS).get(data.task)
    if task is None:
        if not data.template:
            raise UserError(
                f"data.task={data.task!r}: no such task{nearest(data.task, TASKS)}; one of "
                "your own needs data.template"
            )
        fields = prompt_templates.task_fields(data.template, "data.template")
        labels = mappings.label_names(data.labels)
        return own_task(data.task, fields, labels)
    if data.template:
        prompt_templates.check_template(data.template, task, "data.template")
    return task


def read_dataset(path: Path, task: Task) -> Dataset:
    """Read a file of a folder in the paper's layout.

    Raises:
      UserError: no such file, or examples that are not of the task.
    """
    raw = readers.read_file(path, f"data.root={path}")
    return checked(Dataset(set_name(path), task, str(path), False, list(raw)))
