"""Everything that a report shows, whatever it is written in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jft.reporting import figures
from jft.reporting.compare import Report, compare
from jft.reporting.drawing import Plot
from jft.reporting.findings import PaperFinding, findings
from jft.reporting.heatmap import HeatMap, heatmaps
from jft.reporting.models import ScoredModel
from jft.reporting.notes import reproduce
from jft.reporting.read import read_models
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
      texts: looks up the inputs of items.
      data: what the checks of the data found, each once.
      steps: the trainings and evaluations, to be repeated.
    """

    report: Report
    findings: list[PaperFinding]
    matrices: list[HeatMap]
    plots: list[Plot]
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
    models = read_models(dirs)
    report = compare(models)
    with phase("Drawing"):
        plots = figures.plots(report)
    return Content(
        report=report,
        findings=findings(report),
        matrices=heatmaps(report),
        plots=plots,
        texts=InputTexts(models),
        data=_data(models),
        steps=_steps(models),
    )


def _data(models: list[ScoredModel]) -> list[dict]:
    """List the findings on the data, each once: those of trainings first, and warnings before."""
    found = [f for model in models if model.run for f in model.run.data_findings]
    found += [
        f for model in models for each in model.evaluations.values() for f in each.data_findings
    ]
    order = sorted(found, key=lambda finding: finding["severity"] != "warning")
    return list({(f["where"], f["text"]): f for f in order}.values())


def _steps(models: list[ScoredModel]) -> list[Step]:
    trainings = [
        Step(
            f"Train {model.name}",
            reproduce("jft.train", model.path),
            json.dumps(model.run.config, indent=2, ensure_ascii=False),
        )
        for model in models
        if model.run
    ]
    scorings = [
        Step(f"Score {model.name}", reproduce("jft.eval", folder), evaluation.config)
        for model in models
        for folder, evaluation in model.evaluations.items()
    ]
    folders = [folder for model in models for folder in model.evaluations]
    report = shlex.join(["python", "-m", "jft.report", *folders, "--out=NEW"])
    return [*trainings, *scorings, Step("Write this report", report, "")]
