"""Everything that a report shows, whatever it is written in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jft.reporting import figures, runs
from jft.reporting.collect import ScoredModel, collect
from jft.reporting.compare import Report, compare
from jft.reporting.drawing import Plot
from jft.reporting.findings import PaperFinding, findings
from jft.reporting.heatmap import HeatMap, heatmaps
from jft.reporting.notes import reproduce
from jft.reporting.runs import Run
from jft.reporting.texts import InputTexts
from jft.runtime.progress import phase


class Step(NamedTuple):
    """A program that was run: what for, the command that repeats it, and its config."""

    title: str
    command: str
    config: str


@dataclass(frozen=True, slots=True)
class Content:
    """What the report is made of.

    Attributes:
      report: the comparisons.
      findings: the verdicts on the paper's five.
      matrices: changes by model and dataset.
      plots: none where there is nothing to plot.
      runs: the trainings that lie on this machine, by the path of their models.
      texts: looks up the inputs of items.
      data: what the checks of the data found, each once.
      steps: the trainings and evaluations, to be repeated.
    """

    report: Report
    findings: list[PaperFinding]
    matrices: list[HeatMap]
    plots: list[Plot]
    runs: dict[str, Run]
    texts: InputTexts
    data: list[dict]
    steps: list[Step]

    @property
    def tests(self) -> int:
        """How many tests the verdicts rest on."""
        return sum(e.p_value is not None for finding in self.findings for e in finding.evidence)


def gather(dirs: Sequence[str]) -> Content:
    """Read the evaluations in these folders, compare their models, and draw.

    Raises:
      UserError: no evaluation in a folder, or files that are damaged or contradictory.
    """
    models = collect(dirs)
    trained = {model.path: runs.read(model.path) for model in models if not model.is_base}
    found = {path: run for path, run in trained.items() if run}
    report = compare(models)
    with phase("Drawing"):
        plots = figures.plots(report, found)
    return Content(
        report=report,
        findings=findings(report, found),
        matrices=heatmaps(report),
        plots=plots,
        runs=found,
        texts=InputTexts(models),
        data=_data(models, found),
        steps=_steps(models, found),
    )


def _data(models: list[ScoredModel], found: dict[str, Run]) -> list[dict]:
    """Trainings first; what several runs say of the same data is one finding."""
    reports = [run.data for run in found.values()]
    reports += [runs.data_report(Path(folder)) for model in models for folder in model.folders]
    findings = [f for report in reports if report for f in report.get("findings") or []]
    order = sorted(findings, key=lambda finding: finding["severity"] != "warning")
    return list({(f["where"], f["text"]): f for f in order}.values())


def _steps(models: list[ScoredModel], found: dict[str, Run]) -> list[Step]:
    trainings = [
        Step(
            f"Train {model.name}",
            reproduce("jft.train", run.path),
            json.dumps(run.config, indent=2, ensure_ascii=False),
        )
        for model in models
        if (run := found.get(model.path))
    ]
    scorings = [
        Step(f"Score {model.name}", reproduce("jft.eval", folder), config)
        for model in models
        for folder, config in model.configs.items()
    ]
    folders = [folder for model in models for folder in model.folders]
    report = shlex.join(["python", "-m", "jft.report", *folders, "--out=NEW"])
    return [*trainings, *scorings, Step("Write this report", report, "")]
