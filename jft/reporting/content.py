"""Everything that a report shows, whatever it is written in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jft.data.datasets import Dataset
from jft.reporting import figures
from jft.reporting.compare import Report, compare
from jft.reporting.drawing import Plot
from jft.reporting.findings import PaperFinding, findings
from jft.reporting.heatmap import HeatMap, heatmaps
from jft.reporting.models import ScoredModel
from jft.reporting.notes import reproduce
from jft.reporting.pairs import ChangedItem
from jft.reporting.read import read_datasets, read_models
from jft.runtime.progress import phase

# Characters of an input that a table of examples shows.
LONGEST_INPUT = 300


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
      matrices: changes by model and dataset.
      plots: none where there is nothing to plot.
      datasets: by task and name, as far as their data is on this machine.
      data: what the checks of the data found, each once.
      steps: the trainings and evaluations, to be repeated.
    """

    report: Report
    findings: list[PaperFinding]
    matrices: list[HeatMap]
    plots: list[Plot]
    datasets: dict[tuple[str, str], Dataset]
    data: list[dict]
    steps: list[ProgramRun]

    @property
    def tests(self) -> int:
        """The number of tests that the verdicts rest on."""
        return sum(e.p_value is not None for finding in self.findings for e in finding.evidence)

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


def gather(dirs: Sequence[str]) -> Content:
    """Read the evaluations in these folders, compare their models, and draw.

    Raises:
      UserError: no evaluation in a folder, or files that are damaged or contradictory.
    """
    models = read_models(dirs)
    report = compare(models)
    with phase("Drawing"):
        plots = figures.plots(report)
    return Content(
        report=report,
        findings=findings(report),
        matrices=heatmaps(report),
        plots=plots,
        datasets=read_datasets(models),
        data=_data_findings(models),
        steps=_steps(models),
    )


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
