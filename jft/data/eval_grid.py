"""The grid of an evaluation: datasets x shots x draws of demonstrations x prompts; retention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jft import config as config_lib
from jft.data.checks import DataFinding
from jft.data.prompting.prompter import is_chat
from jft.data.retention import Asked, retention_sets
from jft.data.rows import datasets as datasets_lib
from jft.data.rows.dataset_ref import DatasetRef
from jft.data.rows.datasets import Dataset, Suite
from jft.errors import UserError
from jft.runtime.progress import say
from jft.tasks import (
    IN_DOMAIN,
    INSTRUCTION,
    PROMPTS,
    RETENTION_TASKS,
    TEXT,
    TRANSFER,
    Example,
    Trained,
    relation,
    shots_by_task,
)

# In `eval.datasets` it stands for the test sets of every task.
ALL = "all"
# In `eval.in_domain` it stands for no test set.
NONE = "none"


class Cell(NamedTuple):
    """One cell of the grid: a dataset, and the prompt to ask it with.

    Attributes:
      dataset: the whole test set.
      shots: the number of demonstrations before each item.
      prompt: the index of the template in the prompt map.
      draw: 0: the first demonstrations of their file; n: a random draw with seed n.
      template: the prompt template.
      demos: the `shots` demonstrations.
      chat: whether it is asked through the model's chat template.
    """

    dataset: Dataset
    shots: int
    prompt: int
    draw: int
    template: str
    demos: tuple[Example, ...]
    chat: bool = False


def chat_setting(config: config_lib.Config) -> str:
    """Return how an evaluation asks, `text`, `chat`, or `auto`."""
    return config.data.chat if config.eval.chat == "auto" else config.eval.chat


def all_cells(config: config_lib.Config) -> list[Cell]:
    """List the cells that a config asks for: those of the grid, and then the retention panel's.

    Raises:
      UserError: a dataset, a prompt or demonstrations that are not there, or two datasets of
        one name.
    """
    grid, source = config.eval, datasets_lib.suite(config.data)
    for name in ("shots", "prompts", "draws"):
        if not getattr(grid, name):
            raise UserError(f"eval.{name} is empty; give at least one, such as 0")
    _, left_out = _unnamed(config, source)
    if left_out:
        say(f"note: left out, since they have no demonstrations: {', '.join(left_out)}")
    shots_of = _shots(config, source)
    setting = chat_setting(config)
    sets = {id(each): each for each in datasets(config)}.values()
    asked = {id(each): _possible_shots(source, each, shots_of[each.task.name]) for each in sets}
    cells = [
        _cell(source, dataset, shots, prompt, draw)._replace(chat=is_chat(setting, dataset.task))
        for dataset in sets
        for shots in dict.fromkeys(asked[id(dataset)])
        for draw in dict.fromkeys(grid.draws if shots else (0,))
        for prompt in dict.fromkeys(grid.prompts)
    ]
    return [*cells, *_retention(config, cells)]


def _possible_shots(source: Suite, dataset: Dataset, shots: tuple[int, ...]) -> tuple[int, ...]:
    """Keep the numbers of shots that a set can be asked with: without demonstrations that is 0."""
    shown = source.given_demos(dataset.task, dataset.own)
    if dataset.task.kind == TEXT:
        return (0,)
    if not any(shots) or not dataset.own or shown or source.has_demos(dataset.task, dataset.name):
        return shots
    say(
        f"note: {dataset.source} has no demonstrations, so it is asked at 0 shots alone; "
        "data.demos=FILE gives it some"
    )
    return (0,)


def _retention(config: config_lib.Config, cells: Sequence[Cell]) -> list[Cell]:
    """Make the cells of the retention panel, which has no demonstrations to choose among."""
    asked: dict[tuple[str, str], Asked] = {}
    for cell in cells:
        dataset = cell.dataset
        if not cell.template:  # conversations and texts have no prompt in plain text
            continue
        asked.setdefault((dataset.task.name, dataset.name), Asked(dataset, cell.template))
    found = retention_sets(config.eval.retention, asked.values())
    chat = config.eval.chat == "chat"
    return [
        Cell(dataset, 0, 0, 0, "{input}", demos, chat)
        if chat and dataset.task.kind == INSTRUCTION
        else Cell(dataset, 0, 0, 0, template, demos)
        for dataset, template, demos in found
    ]


def _cell(source: Suite, dataset: Dataset, shots: int, prompt: int, draw: int) -> Cell:
    """Make one cell."""
    template = source.template(dataset.task, prompt, "eval.prompts")
    found = source.demos(dataset.task, source.demos_of(dataset), shots, "eval.shots")
    if draw:
        found = [found[i] for i in np.random.default_rng([draw]).permutation(len(found))]
    return Cell(dataset, shots, prompt, draw, template, tuple(found[:shots]))


def datasets(config: config_lib.Config) -> list[Dataset]:
    """Read the test sets that a config asks for.

    If it names none, these are the sets that can be asked with all its numbers of shots, so that
    means at different numbers of shots are over the same sets.

    Raises:
      UserError: a set that is not there, or two with the same task and name, which results could
        not tell apart.
    """
    source, names = datasets_lib.suite(config.data), config.eval.datasets
    unnamed, left_out = _unnamed(config, source)
    wanted = [each for name in names or (ALL,) for each in (unnamed if name == ALL else [name])]
    if not wanted:
        folder = source.root if names else source.root / source.task.name
        which = " with demonstrations; give it some, or set eval.shots=0" if left_out else ""
        remedy = which or "; name some there, such as task:rows.jsonl"
        raise UserError(f"eval.datasets={','.join(names)}: {folder} holds no test set{remedy}")
    found: dict[tuple[str, str], Dataset] = {}
    for dataset in map(source.test_set, wanted):
        known = found.setdefault((dataset.task.name, dataset.name), dataset)
        if known.source != dataset.source and known.examples != dataset.examples:
            raise UserError(
                f"eval.datasets: {known.source} and {dataset.source} are both called "
                f"{dataset.name}; leave one out, or rename it"
            )
    return list(found.values())


def relations(
    config: config_lib.Config, sets: Iterable[Dataset], train: Trained | None
) -> dict[tuple[str, str], str]:
    """Name the relation of each test set to the training sets, by (task, name).

    Sets are in-domain that have the name of a training set, or those of `eval.in_domain`.

    Args:
      config: of the evaluation or the training.
      sets: the test sets.
      train: (task, name) of each training set; None for a model that was not fine-tuned here.
    """
    found = {}
    for each in sets:
        key = each.task.name, each.name
        if each.task.name in RETENTION_TASKS:
            found[key] = relation(train, key)
        elif train and config.eval.in_domain:
            inside = any(_means(name, each) for name in config.eval.in_domain)
            found[key] = IN_DOMAIN if inside else relation([(task, "") for task, _ in train], key)
        else:
            found[key] = relation(train, key)
    for task, name in found:
        if task == PROMPTS:  # they relate as the sets that they are of
            of_task, _, of_name = name.partition("/")
            found[task, name] = found.get((of_task, of_name), found[task, name])
    return found


def check_in_domain(config: config_lib.Config, sets: Sequence[Dataset]) -> None:
    """Check that `eval.in_domain` names test sets that are scored.

    Raises:
      UserError: names the one that is not.
    """
    for name in config.eval.in_domain:
        own = [each for each in sets if each.task.name not in RETENTION_TASKS]
        if name != NONE and not any(_means(name, each) for each in own):
            known = dict.fromkeys(f"{each.task.name}/{each.name}" for each in own)
            raise UserError(
                f"eval.in_domain={name}: not among the datasets to score: {', '.join(known)}"
            )


def _means(name: str, dataset: Dataset) -> bool:
    task, source = dataset.task.name, dataset.source
    names = dataset.name, Path(source).stem, source, str(Path(source).resolve())
    before, _, plain = name.rpartition("/" if name.startswith(f"{task}/") else ":")
    plain = plain if before == task else name
    return plain in names or str(Path(plain).resolve()) in names


def tell_relations(
    config: config_lib.Config, related: Mapping[tuple[str, str], str], train: Trained | None
) -> list[DataFinding]:
    """Tell which sets are in-domain, out-of-domain and out-of-task, where names decided that."""
    if train is None or config.eval.in_domain:
        return []
    related = {key: each for key, each in related.items() if key[0] not in RETENTION_TASKS}
    parts = []
    for name in TRANSFER:
        sets = [each for (_, each), of_set in related.items() if of_set == name]
        parts += [f"{', '.join(sets)} {name}"] if sets else []
    text = f"by their names, {'; '.join(parts)}; set eval.in_domain if that is wrong"
    where = f"trained on {', '.join(name for _, name in train)}"
    return [DataFinding("decision", "relations", where, len(related), len(related), [], text)]


def _shots(config: config_lib.Config, source: Suite) -> dict[str, tuple[int, ...]]:
    """Find the numbers of shots of each task."""
    grid = config.eval
    of_task = shots_by_task("eval.task_shots", grid.task_shots, source.tasks)
    return {name: of_task.get(name, grid.shots) for name in source.tasks}


def _unnamed(config: config_lib.Config, source: Suite) -> tuple[list[str], list[str]]:
    """Find the test sets that a config asks for without a name, and those that it leaves out.

    Left out are those to be asked with demonstrations that have none.
    """
    names, shots = config.eval.datasets, _shots(config, source)
    if names and ALL not in names:
        return [], []
    wanted: list[str] = []
    left_out: list[str] = []
    for task in source.tasks.values() if names else [source.task]:
        for name in source.test_names(task):
            needed = any(shots[task.name]) and not source.given_demos(task)
            fits = not needed or source.has_demos(task, DatasetRef.parse(name).name)
            (wanted if fits else left_out).append(name)
    return wanted, left_out
