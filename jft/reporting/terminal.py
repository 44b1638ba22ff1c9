"""The summary for the terminal, at most 100 columns wide."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jft.reporting import wording
from jft.reporting.compare import TaskGroup
from jft.reporting.content import Content
from jft.reporting.findings import NOT_DECIDED
from jft.reporting.pairs import Comparison

WIDTH = 100
# The first notes are shown; the commands for what is missing always are.
NOTES = 4
COLUMNS = {"": 24, "base": 7, "tuned": 7, "change": 7, "95 % interval": 16, "p (Holm)": 8, "n": 5}


def show(content: Content, console: Console | None = None) -> None:
    """Print the changes by relation, FTICL against FT, the verdicts, and the notes."""
    report = content.report
    console = console or Console(highlight=False)
    console.width = min(console.width, WIDTH)
    console.print(Text(wording.introduction(report)))
    console.print(Text(wording.LEGEND, style="dim"))
    console.print()
    head = _grid()
    head.add_row(*(Text(name, style="dim") for name in COLUMNS))
    console.print(head)
    groups: list[TaskGroup] = [*report.groups, *report.contrast_groups]
    for group in groups:
        console.print(Text(wording.heading(group), style="bold"))
        console.print(_rows(wording.overall(group.relations)))
    decided = [finding for finding in content.findings if finding.verdict != NOT_DECIDED]
    console.print(
        Text(f"Of the paper's findings {len(decided)} of {len(content.findings)} are decided")
    )
    for finding in decided:
        console.print(Text(f"  {finding.verdict}: {finding.claim}"))
    notes = report.notes[:NOTES]
    if len(report.notes) > NOTES:
        notes.append(f"{len(report.notes) - NOTES} more are in the report, under Caveats.")
    for note in [*report.gaps, *notes]:
        # Commands are to be copied whole, so no line breaks within.
        console.print(Text(f"Note: {note}", style="yellow"), soft_wrap=True)


def _grid() -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    for name, width in COLUMNS.items():
        table.add_column(width=width, justify="right" if name else "left", no_wrap=bool(name))
    return table


def _rows(comparisons: list[Comparison]) -> Table:
    table, several = _grid(), len({c.metric for c in comparisons}) > 1
    for c in comparisons:
        relation = f"  {c.relation}" + (f" {wording.metric(c.metric)}" if several else "")
        table.add_row(Text(relation), *_numbers(c))
    return table


def _numbers(c: Comparison) -> list[str | Text]:
    return [
        wording.percent(c.reference_value),
        wording.percent(c.value),
        Text(wording.points(c.change), style=_style(c)),
        wording.interval(c),
        wording.p_value(c.p_holm),
        str(c.n),
    ]


def _style(c: Comparison) -> str:
    if c.difference is None or not c.difference.significant:
        return "dim"
    colour = "blue" if c.difference.value > 0 else "dark_orange3"
    return f"bold {colour}" if wording.is_strong(c) else colour
