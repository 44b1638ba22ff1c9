"""`report.html`: the report as one page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jft import pages
from jft.reporting import wording
from jft.reporting.content import Content
from jft.reporting.pairs import CHOICES, Comparison

WIDTH = 190
MARGIN = 6
# Of more models than this the details are folded up.
FEW_MODELS = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """The common axis of the interval drawings, in points left and right of zero."""

    limit: float

    def x(self, value: float) -> float:
        """Where a difference stands, in pixels."""
        half = WIDTH / 2 - MARGIN
        return round(WIDTH / 2 + half * max(-1.0, min(1.0, value / self.limit)), 1)


def render(content: Content) -> str:
    """The whole page; all text from data is escaped."""
    environment = pages.environment(Path(__file__).parent)
    environment.filters |= {
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "percent": wording.percent,
        "points": wording.points,
        "metric": wording.metric,
        "p_value": wording.p_value,
    }
    report = content.report
    return environment.get_template("report.html.jinja").render(
        content=content,
        report=report,
        wording=wording,
        choices=tuple(CHOICES),
        few=len(report.recipes) <= FEW_MODELS,
        cells=_cells(content),
        total=sum(len(model.cells) for model in report.models),
        scale=_scale([c for recipe in report.recipes for c in recipe.relations]),
        width=WIDTH,
    )


def _scale(comparisons: list[Comparison]) -> Scale:
    """Wide enough for every interval, in whole steps of five points."""
    ends = [abs(e) for c in comparisons if (d := c.difference) for e in (d.low, d.high)]
    return Scale(max(0.05, -(-round(max(ends, default=0) * 100, 3) // 5) * 0.05))


def _cells(content: Content) -> dict[str, list[tuple]]:
    """Every cell of every model, with its comparison where there is one of that model alone."""
    report = content.report
    found = {
        (model.name, c.task, c.dataset, c.shots, c.prompt, c.draw): c
        for recipe in report.recipes
        if recipe.seeds == 1
        for model in recipe.models
        for c in recipe.cells
    }
    return {
        model.name: [(cell, found.get((model.name, *key))) for key, cell in model.cells.items()]
        for model in report.models
    }
