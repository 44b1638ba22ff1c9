"""The files of a report, and its summary for the terminal.

Page and text come from two templates of one outline; plots and tables are beside them.
"""

from __future__ import annotations

import csv
import html
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jft import pages
from jft.evaluation.metrics import ACCURACY, METRICS, Metric
from jft.reporting import answer, wording
from jft.reporting.compare import TaskGroup
from jft.reporting.comparison import Comparison
from jft.reporting.content import Content
from jft.reporting.findings import NOT_DECIDED
from jft.reporting.pairs import CHOICES

# Of more models than this the page folds up the details.
FEW_MODELS = 4
# Widths of the columns of the summary in the terminal, which is at most `TERMINAL_WIDTH` wide. Its
# first notes are shown; the commands for what is missing always are.
TERMINAL_COLUMNS = {
    **{"": 24, "base": 7, "tuned": 7, "change": 7},
    **{"95 % interval": 16, "p (Holm)": 8, "n": 5},
}
TERMINAL_WIDTH, TERMINAL_NOTES = 100, 4
# Pixels of the drawing of an interval, and those left free at either end.
WIDTH, MARGIN = 190, 6
# Characters that Markdown would take for its own.
SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")
COMPARISON = (
    *("level", "model", "reference", "relation", "task", "dataset", "shots", "prompt", "draw"),
    *("metric", "value", "reference_value", "difference", "low", "high", "p_value", "p_holm"),
    *("detectable", *(f"sd_{name}" for name in CHOICES), "n", "changed"),
    *("trainings", "recipe_low", "recipe_high", "recipe_p_value"),
)
CELL = (
    *("model", "task", "dataset", "shots", "prompt", "draw", "relation", "metric", "value"),
    *("stderr", "n", "skipped"),
)
WEIGHT = ("model", "layer", "kind", "relative_norm", "cosine", "effective_rank", "full_rank")


def files(content: Content) -> dict[str, bytes]:
    """Render all files of a report, by name."""
    texts = {
        "report.html": page_of(content),
        "report.md": markdown_of(content),
        **tables_of(content),
    }
    plots = {f"{plot.name}.png": plot.png for plot in content.plots}
    return {name: text.encode() for name, text in texts.items()} | plots


def page_of(content: Content) -> str:
    """Render `report.html`, which needs nothing else; all text from data is escaped."""
    report = content.report
    environment = pages.environment(Path(__file__).parent)
    groups: list[TaskGroup] = [*report.groups, *report.contrast_groups]
    drawn = [c for recipe in report.recipes for c in (*recipe.relations, *recipe.prompting)]
    drawn += report.asked
    limit = _limit([*drawn, *(c for group in groups for c in group.answer)])
    return _render(
        environment,
        "report.html.jinja",
        content,
        choices=[name for name in CHOICES if any(name in c.spreads for c in report.comparisons)],
        metrics=_other_metrics(content),
        compared={
            model.name: {(c.task, c.dataset, c.shots, c.prompt, c.draw): c for c in recipe.cells}
            for recipe in report.recipes
            if recipe.seeds == 1
            for model in recipe.models
        },
        few=len(report.recipes) <= FEW_MODELS,
        limit=limit,
        width=WIDTH,
        x=lambda difference: _x(difference, limit),
    )


def _other_metrics(content: Content) -> list[Metric]:
    """List the metrics of the report that are no main ones, in the order of their table."""
    found = {c.metric for recipe in content.report.recipes for c in recipe.measures}
    return [metric for metric in METRICS.values() if metric.name in found]


def markdown_of(content: Content) -> str:
    """Render `report.md` for GitHub; plots are the PNG files beside it.

    All text from data is escaped, by the environment, as in the page.
    """
    environment = pages.environment(Path(__file__).parent).overlay(finalize=_escape)
    return _render(environment, "report.md.jinja", content, metrics=_other_metrics(content))


def tables_of(content: Content) -> dict[str, str]:
    """Render the CSV files by name; metrics and differences are fractions of 1.

    In `comparisons.csv` the p-values of each `level` are adjusted together: `recipe_p_value` where
    there is one, or else `p_value`. An empty `task`,
    `dataset`, `shots`, `prompt` or `draw` means the mean over several; an empty `reference` that
    there was nothing to compare with.
    """
    return {
        "comparisons.csv": _csv(COMPARISON, map(_comparison, content.report.comparisons)),
        "cells.csv": _csv(CELL, _cells(content)),
        "drift.csv": _csv(WEIGHT, _weights(content)),
    }


def _render(
    environment: jinja2.Environment, template: str, content: Content, **for_template
) -> str:
    environment.filters |= {
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "code": lambda text: Markup(text.replace("```", "")),
        "metric": wording.metric,
        "p_value": wording.p_value,
        "percent": wording.percent,
        "points": wording.points,
        "summary": lambda text: Markup(html.escape(" ".join(text.split()), quote=False)),
    }
    return environment.get_template(template).render(
        content=content,
        report=content.report,
        answers=answer,
        metrics_of=METRICS,
        wording=wording,
        num_cells=sum(len(model.cells) for model in content.report.models),
        **for_template,
    )


def _escape(value: object) -> Markup:
    """Make text that Markdown and HTML leave as it is, on one line."""
    if isinstance(value, Markup):
        return value
    plain = html.escape(" ".join(str(value).split("\n")), quote=False)
    return Markup(SPECIAL.sub(r"\\\1", plain))


def _limit(comparisons: Iterable[Comparison]) -> float:
    """Find the least multiple of five points that holds every interval: the axis ends there.

    What has a unit of its own may lie beyond: bits per byte know no limit, and one broken model
    would leave no room for the others.
    """
    shares = [c for c in comparisons if not METRICS[c.metric].unit]
    ends = [abs(e) for c in shares if (d := c.judged) for e in (d.low, d.high)]
    return max(0.05, -(-round(max(ends, default=0) * 100, 3) // 5) * 0.05)


def _x(difference: float, limit: float) -> float:
    """Place a difference on the axis from `-limit` to `limit`, in pixels."""
    half = WIDTH / 2 - MARGIN
    return round(WIDTH / 2 + half * max(-1.0, min(1.0, difference / limit)), 1)


def _comparison(comparison: Comparison) -> dict:
    known = {name: getattr(comparison, name, None) for name in COMPARISON}
    interval = comparison.difference
    if interval:  # of these checkpoints; those of the recipe have columns of their own
        known |= {"low": interval.low, "high": interval.high, "p_value": interval.p_value}
    if recipe := comparison.recipe:
        known |= {"recipe_low": recipe.low, "recipe_high": recipe.high}
        known |= {"recipe_p_value": recipe.p_value, "trainings": recipe.trainings}
    known |= {f"sd_{name}": spread.value for name, spread in comparison.spreads.items()}
    return known | {"difference": comparison.change}


def _cells(content: Content) -> Iterable[dict]:
    for model in content.report.models:
        for key, cell in model.cells.items():
            fields = ("relation", "metric", "value", "n", "skipped")
            known = {name: getattr(cell, name) for name in fields}
            # A single item has no standard error.
            stderr = cell.stderr if cell.stderr == cell.stderr else None
            yield key._asdict() | known | {"model": model.name, "stderr": stderr}


def _weights(content: Content) -> Iterable[dict]:
    """List the weights of each run, after one line for all of them without a layer and a kind."""
    for model in content.report.models:
        if model.drift:
            whole = {"layer": None, "kind": "all"} | model.drift["all"]
            for weight in (whole, *model.drift["weights"]):
                yield {"model": model.name} | weight


def _csv(columns: Sequence[str], lines: Iterable[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def show(content: Content, console: Console | None = None) -> None:
    """Print the summary: the changes by relation, FTICL against FT, the verdicts, and the notes."""
    report = content.report
    console = console or Console(highlight=False)
    console.width = min(console.width, TERMINAL_WIDTH)
    console.print(Text(wording.introduction(report)))
    console.print(Text(wording.LEGEND.format(margin=f"{100 * report.margin:g}"), style="dim"))
    console.print()
    head = _grid()
    head.add_row(*(Text(name, style="dim") for name in TERMINAL_COLUMNS))
    console.print(head)
    groups: list[TaskGroup] = [*report.groups, *report.contrast_groups]
    for group in groups:
        console.print(Text(wording.heading(group), style="bold"))
        console.print(Text(f" {answer.verdict(group.answer, report.margin)}"))
        console.print(_rows(wording.overall(group.answer)))
    for name, found in itertools.groupby(report.asked, lambda c: c.model):
        console.print(Text(f"{name}, against the same in plain text", style="bold"))
        first = {(c.relation, c.metric): c for c in reversed(list(found))}  # over all shots
        console.print(_rows(list(reversed(first.values()))))
    decided = [finding for finding in content.findings if finding.verdict != NOT_DECIDED]
    console.print(
        Text(f"Of the paper's findings {len(decided)} of {len(content.findings)} are decided")
    )
    for finding in decided:
        console.print(Text(f"  {finding.verdict}: {finding.claim}"))
    notes = report.notes[:TERMINAL_NOTES]
    if len(report.notes) > TERMINAL_NOTES:
        notes.append(f"{len(report.notes) - TERMINAL_NOTES} more are in the report, under Caveats.")
    for note in [*report.gaps, *notes]:
        # Commands are to be copied whole, so no line breaks within.
        console.print(Text(f"Note: {note}", style="yellow"), soft_wrap=True)


def _grid() -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for name, width in TERMINAL_COLUMNS.items():
        table.add_column(width=width, justify="right" if name else "left", no_wrap=bool(name))
    return table


def _rows(comparisons: list[Comparison]) -> Table:
    table, relations = _grid(), [c.relation for c in comparisons]
    for c in comparisons:
        several = relations.count(c.relation) > 1 or c.metric != ACCURACY
        relation = f" {c.relation}" + (f" {wording.metric(c.metric)}" if several else "")
        table.add_row(Text(relation), *_numbers(c))
    return table


def _numbers(c: Comparison) -> list[str | Text]:
    return [
        *(_value(value, c.metric) for value in (c.reference_value, c.value)),
        Text(wording.points(c.change, metric=c.metric), style=_style(c)),
        wording.interval(c),
        wording.p_value(c.p_holm),
        str(c.n),
    ]


def _value(value: float | None, metric: str) -> str:
    """Write a value; a unit other than percent has no room, and the row's name says it."""
    return wording.points(value, False, metric) if METRICS[metric].unit else wording.percent(value)


def _style(c: Comparison) -> str:
    if not answer.direction(c):
        return "dim"
    colour = "blue" if c.direction > 0 else "dark_orange3"
    return f"bold {colour}" if wording.is_strong(c) else colour
