"""Everything that a report shows, whatever it is written in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jft.data.datasets import Dataset
from jft.reporting import figures
from jft.reporting import pairs as pairs_lib
from jft.reporting.compare import MARGIN, Report, compare
from jft.reporting.drawing import Plot
from jft.reporting.findings import PaperFinding, findings
from jft.reporting.heatmap import HeatMap, heatmaps
from jft.reporting.models import ScoredItem, ScoredModel
from jft.reporting.notes import reproduce
from jft.reporting.pairs import Pair
from jft.reporting.read import read_datasets, read_models
from jft.runtime.progress import phase
from jft.runtime.records import Key

# Items of a relation that are shown as examples of those lost, and of those gained.
SHOWN = 2
# Characters of an input that a table of examples shows.
LONGEST_INPUT = 300


class ChangedItem(NamedTuple):
    """An item on which a model and its base differ."""

    key: Key
    item_index: int
    base: ScoredItem
    tuned: ScoredItem


@dataclass(frozen=True, slots=True)
class ChangedItems:
    """Items that a tuned model lost (scored lower than its base) and gained, of one relation.

    An item counts once for each number of shots, prompt, seed and draw.
    """

    relation: str
    metric: str
    n: int
    lost: int
    gained: int
    lost_items: tuple[ChangedItem, ...]
    gained_items: tuple[ChangedItem, ...]

    @property
    def examples(self) -> list[tuple[str, ChangedItem]]:
        """The items that are shown, each with `lost` or `gained`."""
        lost, gained = (("lost", self.lost_items), ("gained", self.gained_items))
        return [(name, item) for name, items in (lost, gained) for item in items]


class ProgramRun(NamedTuple):
    """A program that was run: its purpose, the command that repeats it, and its config."""

    title: str
    command: str
    config: str


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that the report is made of.

    Attributes:
      report: the comparisons.
      findings: the verdicts on the paper's five.
      changed: the items that each recipe lost and gained, by its name.
      matrices: changes by model and dataset.
      plots: none where there is nothing to plot.
      datasets: by task and name, as far as their data is on this machine.
      data: what the checks of the data found, each once.
      steps: the trainings and evaluations, to be repeated.
    """

    report: Report
    findings: list[PaperFinding]
    changed: dict[str, list[ChangedItems]]
    matrices: list[HeatMap]
    plots: list[Plot]
    datasets: dict[tuple[str, str], Dataset]
    data: list[dict]
    steps: list[ProgramRun]

    def input_of(self, item: ChangedItem) -> str:
        """Look up the input of an item, which results leave out: its fields, shortened, one a line.

        Empty where the data is not on this machine any more, or has changed since.
        """
        dataset = self.datasets.get((item.key.task, item.key.dataset))
        if dataset is None or item.item_index >= len(dataset.examples):
            return ""
        example = dataset.examples[item.item_index]
        if example["output"] != item.base.gold:
            return ""
        return "\n".join(_shorten(example[name]) for name in dataset.task.fields)


def gather(dirs: Sequence[str], margin: float = MARGIN) -> Content:
    """Read the evaluations in these folders, compare their models, and draw.

    Raises:
      UserError: no evaluation in a folder, or files that are damaged or contradictory.
    """
    models = read_models(dirs)
    report = compare(models, margin)
    with phase("Drawing"):
        plots = figures.plots(report)
    return Content(
        report=report,
        findings=findings(report),
        changed={recipe.name: _changed_by_relation(recipe.pairs) for recipe in report.recipes},
        matrices=heatmaps(report),
        plots=plots,
        datasets=read_datasets(models),
        data=_data_findings(models),
        steps=_steps(models),
    )


def _changed_by_relation(pairs: Sequence[Pair]) -> list[ChangedItems]:
    """Count the items that differ, by relation and metric."""
    paired = [each for each in pairs if each.other]
    return [_changed_items(group) for group in pairs_lib.split(paired, pairs_lib.by_relation)]


def _changed_items(pairs: list[Pair]) -> ChangedItems:
    items = [
        ChangedItem(cell.key, index, other.items[index], item)
        for cell, other, _ in pairs
        if other
        for index, item in cell.items.items()
    ]
    lost = [item for item in items if item.tuned.value < item.base.value]
    gained = [item for item in items if item.tuned.value > item.base.value]
    first = pairs[0].cell
    return ChangedItems(
        first.relation, first.metric, len(items), len(lost), len(gained),
        _clearest(lost), _clearest(gained),
    )  # fmt: skip


def _clearest(items: list[ChangedItem]) -> tuple[ChangedItem, ...]:
    """Choose the largest changes, of different items, in file order where they are alike."""
    chosen: dict[tuple, ChangedItem] = {}
    for item in sorted(items, key=lambda item: -abs(item.tuned.value - item.base.value)):
        chosen.setdefault((item.key.dataset, item.item_index), item)
    return tuple(chosen.values())[:SHOWN]


def _data_findings(models: list[ScoredModel]) -> list[dict]:
    """List the findings on the data, each once: warnings first, and those of trainings first."""
    found = [f for model in models if model.run for f in model.run.data_findings]
    evaluations = [each for model in models for each in model.evaluations.values()]
    found += [f for evaluation in evaluations for f in evaluation.data_findings]
    order = sorted(found, key=lambda finding: finding["severity"] != "warning")
    return list({(f["where"], f["text"]): f for f in order}.values())


def _steps(models: list[ScoredModel]) -> list[ProgramRun]:
    trainings = [
        ProgramRun(
            f"Train {model.name}",
            reproduce("jft.train", model.path),
            json.dumps(model.run.config, indent=2, ensure_ascii=False),
        )
        for model in models
        if model.run
    ]
    scorings = [
        ProgramRun(f"Score {model.name}", reproduce("jft.eval", folder), evaluation.config)
        for model in models
        for folder, evaluation in model.evaluations.items()
    ]
    folders = [folder for model in models for folder in model.evaluations]
    report = shlex.join(["python", "-m", "jft.report", *folders, "--out=NEW"])
    return [*trainings, *scorings, ProgramRun("Write this report", report, "")]


def _shorten(text: str) -> str:
    plain = " ".join(text.split())
    if len(plain) <= LONGEST_INPUT:
        return plain
    return plain[: LONGEST_INPUT - 1] + "\N{HORIZONTAL ELLIPSIS}"
