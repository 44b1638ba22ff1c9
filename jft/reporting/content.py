"""Everything that a report shows, whatever it is written in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jft import config as config_lib
from jft.data.rows.datasets import Dataset
from jft.data.rows.forms import read_conversation
from jft.evaluation.metrics import BITS, METRICS, P_CHOICE, P_GOLD
from jft.reporting import figures
from jft.reporting import pairs as pairs_lib
from jft.reporting.compare import MARGIN, Report, compare
from jft.reporting.drawing import Plot
from jft.reporting.findings import PaperFinding, findings
from jft.reporting.heatmap import HeatMap, heatmaps
from jft.reporting.models import FOREIGN, Run, ScoredCell, ScoredItem, ScoredModel
from jft.reporting.notes import reproduce
from jft.reporting.pairs import Pair
from jft.reporting.read import read_datasets, read_models
from jft.runtime.progress import phase
from jft.runtime.records import Key
from jft.tasks import CONVERSATION

# Items of a relation that are shown as examples of those lost, and of those gained.
SHOWN = 2
# Characters of an input that a table of examples shows.
LONGEST_INPUT = 300


class ChangedItem(NamedTuple):
    """An item on which a model and its base differ, and by how much."""

    key: Key
    item_index: int
    base: ScoredItem
    tuned: ScoredItem
    size: float
    seed: int


@dataclass(frozen=True, slots=True)
class ChangedItems:
    """Items that a tuned model lost (scored lower than its base) and gained, of one relation.

    An item counts once for each number of shots, prompt, seed and draw. Shown are those of the
    largest change, of the gold label's probability where labels were scored.
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


class SaidOverTime(NamedTuple):
    """The generations of a validation row: (step, text, ROUGE-L) of each probe."""

    place: str
    reference: str
    texts: list[tuple[int, str, float]]


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
      said: what each recipe said of a few rows while it was trained, by its name.
      matrices: changes by model and dataset.
      plots: none where there is nothing to plot.
      datasets: by task and name, as far as their data is on this machine.
      data: what the checks of the data found, each once.
      steps: the trainings and evaluations, to be repeated.
    """

    report: Report
    findings: list[PaperFinding]
    changed: dict[str, list[ChangedItems]]
    said: dict[str, list[SaidOverTime]]
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
        if dataset.task == CONVERSATION:
            messages = read_conversation(example).messages
            return "\n".join(_shorten(f"{m['role']}: {m['content']}") for m in messages)
        return "\n".join(_shorten(example[name]) for name in dataset.task.fields)


def gather(dirs: Sequence[str], margin: float = MARGIN, base: str = "") -> Content:
    """Read the evaluations in these folders, compare their models, and draw.

    Args:
      dirs: the folders.
      margin: changes below it are taken as too small to matter.
      base: the folder of the base among those of lm-evaluation-harness; empty: the first.

    Raises:
      UserError: no evaluation in a folder, or files that are damaged or contradictory.
    """
    models = read_models(dirs, base)
    report = compare(models, margin)
    with phase("Drawing"):
        plots = figures.plots(report)
    return Content(
        report=report,
        findings=findings(report),
        changed={recipe.name: _changed_by_relation(recipe.pairs) for recipe in report.recipes},
        said={recipe.name: _said(recipe.first.run) for recipe in report.recipes},
        matrices=heatmaps(report),
        plots=plots,
        datasets=read_datasets(models),
        data=_data_findings(models),
        steps=_steps(models, margin),
    )


def _said(run: Run | None) -> list[SaidOverTime]:
    found: dict[str, SaidOverTime] = {}
    for record in run.generations if run else ():
        place = f"{record['task']}/{record['dataset']} row {record['index']} (from 0)"
        place += f": {_shorten(record['prompt'])}" if record.get("prompt") else ""
        row = found.setdefault(place, SaidOverTime(place, record["output"], []))
        row.texts.append((record["step"], record["generation"], record["rougeL"]))
    return list(found.values())


def _changed_by_relation(pairs: Sequence[Pair]) -> list[ChangedItems]:
    """Count the items that differ, by relation and metric; texts that were read have no answers."""
    paired = [each for each in pairs if each.other and each.cell.metric != BITS]
    return [_changed_items(group) for group in pairs_lib.split(paired, pairs_lib.by_relation)]


def _changed_items(pairs: list[Pair]) -> ChangedItems:
    items = [
        ChangedItem(
            cell.key, i, other.items[i], item, _size_of_change(cell, other, place), model.seed
        )
        for cell, other, model in pairs
        if other
        for place, (i, item) in enumerate(cell.items.items())
    ]
    first = pairs[0].cell
    sign = METRICS[first.metric].direction or 1
    lost = [item for item in items if sign * (item.tuned.value - item.base.value) < 0]
    gained = [item for item in items if sign * (item.tuned.value - item.base.value) > 0]
    return ChangedItems(
        first.relation, first.metric, len(items), len(lost), len(gained),
        _clearest(lost), _clearest(gained),
    )  # fmt: skip


def _size_of_change(cell: ScoredCell, other: ScoredCell, place: int) -> float:
    """Measure how much an item changed: by the probability of its gold answer, if that is known."""
    for name in (P_GOLD, P_CHOICE):
        if name in cell.measures and name in other.measures:
            return abs(cell.measures[name][place] - other.measures[name][place])
    one, two = (list(each.items.values())[place] for each in (cell, other))
    return abs(one.value - two.value)


def _clearest(items: list[ChangedItem]) -> tuple[ChangedItem, ...]:
    """Choose the largest changes, of different items, in file order where they are alike."""
    chosen: dict[tuple, ChangedItem] = {}
    for item in sorted(items, key=lambda item: -item.size):
        chosen.setdefault((item.key.dataset, item.item_index), item)
    return tuple(chosen.values())[:SHOWN]


def _data_findings(models: list[ScoredModel]) -> list[dict]:
    """List the findings on the data, each once: warnings first, and those of trainings first."""
    found = [f for model in models if model.run for f in model.run.data_findings]
    evaluations = [each for model in models for each in model.evaluations.values()]
    found += [f for evaluation in evaluations for f in evaluation.data_findings]
    order = sorted(found, key=lambda finding: finding["severity"] != "warning")
    return list({(f["where"], f["text"]): f for f in order}.values())


def _steps(models: list[ScoredModel], margin: float) -> list[ProgramRun]:
    trainings = [
        ProgramRun(
            f"Train {model.name}",
            reproduce("jft.train", model.path),
            _own_keys(model.run.config),
        )
        for model in models
        if model.run
    ]
    scorings = [
        ProgramRun(
            f"Score {model.name}", reproduce("jft.eval", folder), _own_keys(evaluation.config)
        )
        for model in models
        for folder, evaluation in model.evaluations.items()
        if any(key.task != FOREIGN for key in evaluation.keys)  # which has its own commands
    ]
    folders = [folder for model in models for folder in model.evaluations]
    flags = [f"--margin={100 * margin:g}", "--out=NEW"]
    report = shlex.join(["python", "-m", "jft.report", *folders, *flags])
    return [*trainings, *scorings, ProgramRun("Write this report", report, "")]


def _own_keys(config: dict) -> str:
    """Write the keys of a config that differ from their defaults; a config file takes them."""
    defaults = config_lib.to_dict(config_lib.Config())
    own = {
        section: {k: v for k, v in keys.items() if v != defaults.get(section, {}).get(k)}
        for section, keys in config.items()
        if isinstance(keys, dict)
    }
    own = {section: keys for section, keys in own.items() if keys}
    return json.dumps(own, indent=2, ensure_ascii=False) if config else ""


def _shorten(text: str) -> str:
    plain = " ".join(text.split())
    if len(plain) <= LONGEST_INPUT:
        return plain
    return plain[: LONGEST_INPUT - 1] + "\N{HORIZONTAL ELLIPSIS}"
