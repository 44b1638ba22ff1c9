"""Rows from files: the paper's folder layout, JSON and JSONL rows of your own, and `mini`.

ROOT/prompt_map.json                             a list of {task: template}
ROOT/<task>/<dataset>_train_<n>.json             a list of rows
ROOT/<task>/<dataset>_test_<n>.json
ROOT/<task>/few_shot/<dataset>_few_shot.json     demonstrations
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import NamedTuple

from jft.data.prompts import check_template
from jft.errors import UserError
from jft.tasks import TASKS, Task

MINI = Path(__file__).parent / "mini"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Row = dict[str, str]


class Dataset(NamedTuple):
    """Rows of one task.

    Attributes:
      name: the dataset, without `_train_2000`.
      task: whose fields the rows have.
      path: the file.
      rows: in file order; every field of the task and `output` are text.
    """

    name: str
    task: Task
    path: Path
    rows: list[Row]

    def where(self, index: int) -> str:
        """What errors call a row."""
        return f"{self.path.name} row {index} (from 0)"


class Suite(NamedTuple):
    """A folder in the paper's layout."""

    root: Path

    def template(self, task: Task, index: int) -> str:
        """The task's prompt template.

        Raises:
          UserError: no such index, no template for the task, or fields that the task lacks.
        """
        path = self.root / "prompt_map.json"
        templates = read_json(path)
        if not isinstance(templates, list) or not all(isinstance(t, dict) for t in templates):
            raise UserError(f"{path}: must be a list of objects, task to template")
        if index >= len(templates):
            raise UserError(f"data.prompt={index}: {path} holds {len(templates)} prompts, from 0")
        template = templates[index].get(task.name)
        if not isinstance(template, str):
            raise UserError(f"{path}: prompt {index} has no template for task {task.name}")
        check_template(template, task, f"{path} prompt {index}")
        return template

    def training(self, task: Task, train: str) -> Dataset:
        """The training set that `data.train` names.

        Raises:
          UserError: no such file (names the nearest), or rows that are not of the task.
        """
        if not train:
            known = self._names(task, "train")
            raise UserError(f"data.train is empty; {self.root / task.name} holds {_list(known)}")
        path = _own_file("data.train", train) or self.root / task.name / f"{train}.json"
        if not path.is_file():
            raise UserError(
                f"data.train={train}: no file {path}{_nearest(train, self._names(task, 'train'))}"
            )
        dataset = read_dataset(path, task)
        for index, row in enumerate(dataset.rows):
            if task.labels and row["output"] not in task.labels:
                raise UserError(
                    f"{dataset.where(index)}: output {row['output']!r} is not a label of task "
                    f"{task.name}: {', '.join(task.labels)}"
                )
        return dataset

    def test(self, name: str, task: Task) -> Dataset:
        """The test set of this name: `paws`, `detection/paws`, `paws_test_500` or `task:path`.

        Args:
          name: one of `eval.datasets`.
          task: whose rows a path holds when no task stands before it.
        """
        before, colon, after = name.partition(":")
        if before in TASKS and colon:
            name, task = after, TASKS[before]
        elif colon and not Path(name).expanduser().exists():
            raise UserError(f"eval.datasets={name}: no task {before}{_nearest(before, [*TASKS])}")
        own = _own_file("eval.datasets", name)
        if own:
            return read_dataset(own, task)
        found = [(t, path) for t in TASKS.values() for path in self._tests(t) if _is(name, t, path)]
        if not found:
            known = sorted({dataset_name(path) for t in TASKS.values() for path in self._tests(t)})
            raise UserError(f"eval.datasets={name}: no such test set{_nearest(name, known)}")
        if len(found) > 1:
            choice = " or ".join(f"{t.name}/{path.stem}" for t, path in found)
            raise UserError(f"eval.datasets={name}: several test sets; say {choice}")
        return read_dataset(found[0][1], found[0][0])

    def tests(self, task: Task) -> list[str]:
        """The names of a task's test sets, as `test` takes them."""
        return [f"{task.name}/{path.stem}" for path in self._tests(task)]

    def demos(self, task: Task, dataset: str, shots: int) -> list[Row]:
        """All demonstrations of a dataset; none are needed, and none read, at 0 shots.

        Raises:
          UserError: no demonstration file, or fewer in it than `shots`.
        """
        if shots == 0:
            return []
        folder = self.root / task.name / "few_shot"
        path = _own_file("data.demos", dataset) or folder / f"{dataset}_few_shot.json"
        if not path.is_file():
            known = [
                p.stem.removesuffix("_few_shot") for p in sorted(folder.glob("*_few_shot.json"))
            ]
            raise UserError(
                f"data.demos={dataset}: no demonstrations in {path}; set data.demos to a file of "
                f"yours, or to one of {_list(known)}; or use 0 shots"
            )
        rows = read_dataset(path, task).rows
        if shots > len(rows):
            raise UserError(f"shots={shots}: {path.name} holds {len(rows)} demonstrations")
        return rows

    def _tests(self, task: Task) -> list[Path]:
        return sorted((self.root / task.name).glob("*_test_*.json"))

    def _names(self, task: Task, kind: str) -> list[str]:
        return [path.stem for path in sorted((self.root / task.name).glob(f"*_{kind}_*.json"))]


def suite(root: str) -> Suite:
    """The suite in a folder, or `mini`.

    Raises:
      UserError: no such folder, or no `prompt_map.json` in it.
    """
    path = MINI if root == "mini" else Path(root).expanduser()
    if not (path / "prompt_map.json").is_file():
        raise UserError(f"data.root={root}: no file {path / 'prompt_map.json'}")
    return Suite(path)


def read_dataset(path: Path, task: Task) -> Dataset:
    """The rows of a JSON list or of JSON lines, checked field by field.

    Raises:
      UserError: naming the file and the row, for rows that are not what the task needs.
    """
    raw = _read_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(raw, list):
        raise UserError(f"{path}: must be a JSON list of rows, not {type(raw).__name__}")
    if not raw:
        raise UserError(f"{path}: holds no rows")
    dataset = Dataset(dataset_name(path), task, path, raw)
    for index, row in enumerate(raw):
        _check_row(row, task, dataset.where(index))
    return dataset


def read_json(path: Path):
    """A JSON file's content; UserError names the file and the line that is malformed."""
    return _parse(_read_text(path), path, 0)


def _read_lines(path: Path) -> list:
    lines = _read_text(path).split("\n")
    return [_parse(line, path, number) for number, line in enumerate(lines) if line.strip()]


def _parse(text: str, path: Path, line: int):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} line {line + error.lineno}, column {error.colno}: not valid JSON: {error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number too long, lists nested too deep
        raise UserError(f"{path} line {line + 1}: not readable as JSON: {error}") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


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


def dataset_name(path: Path) -> str:
    """The dataset of a file named `paws_train_2000`, `paws_test_500`, `paws_few_shot` or `paws`."""
    return re.sub(r"_(train|test|few_shot)(_\d+)?$", "", path.stem)


def _is(name: str, task: Task, path: Path) -> bool:
    return name in (
        dataset_name(path),
        path.stem,
        f"{task.name}/{dataset_name(path)}",
        f"{task.name}/{path.stem}",
    )


def _own_file(key: str, name: str) -> Path | None:
    """The file that a key's value is the path of; None for the name of a set of the suite."""
    path = Path(name).expanduser()
    if path.suffix in (".json", ".jsonl"):
        if not path.is_file():
            raise UserError(f"{key}={name}: no file {path}")
        return path
    if path.is_file():
        raise UserError(f"{key}={name}: rows of your own come in a .json or a .jsonl file")
    return None


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there is {_list(known)}"


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
