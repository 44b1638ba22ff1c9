"""Everything that a report shows, whatever it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jft.progress import phase
from jft.reporting import figures, runs
from jft.reporting.collect import collect
from jft.reporting.compare import Report, compare
from jft.reporting.drawing import Plot
from jft.reporting.findings import Finding, findings
from jft.reporting.heatmap import HeatMap, heatmaps
from jft.reporting.runs import Run
from jft.reporting.texts import Texts


@dataclass(frozen=True, slots=True)
class Content:
    """What the report is made of.

    Attributes:
      report: the comparisons.
      findings: the verdicts on the paper's five.
      matrices: changes by model and data set.
      plots: none where there is nothing to plot.
      runs: the trainings that lie on this machine, by the path of their models.
      texts: looks up the inputs of items.
    """

    report: Report
    findings: list[Finding]
    matrices: list[HeatMap]
    plots: list[Plot]
    runs: dict[str, Run]
    texts: Texts


def gather(dirs: Sequence[str]) -> Content:
    """Read the evaluations in these folders, compare their models, and draw.

    Raises:
      UserError: no evaluation in a folder, or files that are damaged or contradictory.
    """
    models = collect(dirs)
    trained = {m.path: runs.read(m.path) for m in models if not m.is_base}
    found = {path: run for path, run in trained.items() if run}
    report = compare(models)
    with phase("Drawing"):
        plots = figures.plots(report, found)
    return Content(report, findings(report, found), heatmaps(report), plots, found, Texts(models))
