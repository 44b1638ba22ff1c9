"""`report.md`: the report as GitHub renders it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from jft.reporting import wording
from jft.reporting.compare import Recipe, Report, TaskGroup
from jft.reporting.content import Content, Step
from jft.reporting.drawing import Plot
from jft.reporting.heatmap import HeatCell, HeatMap
from jft.reporting.pairs import ChangedItems, Comparison

SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")
COMPARED = ("base", "tuned", "change", "95 % interval", "p", "p (Holm)")


def render(content: Content) -> str:
    """The whole report as GitHub-flavoured Markdown; plots are the PNG files beside it."""
    report = content.report
    parts = [
        "# What the fine-tuning did",
        escape(wording.introduction(report)),
        *(f"> {escape(gap)}" for gap in report.gaps),
        *_answer(report),
        "## The paper's findings",
        _findings(content),
        "## Transfer matrix",
        "Change in points, averaged over prompts; base rows hold the metric itself. **Bold**: "
        "adjusted p < 0.05; (in brackets): no measurable change.",
        *(part for matrix in content.matrices for part in _matrix(matrix)),
        *(part for plot in content.plots for part in _plot(plot)),
        "## Every model",
        _summary(report),
        _cells(report),
        "## Lost and gained items",
        *(part for recipe in report.recipes for part in _changed_items(recipe, content)),
        "## The data",
        "\n".join(f"- **{escape(f['where'])}**: {escape(f['text'])}." for f in content.data)
        or "The checks before training and scoring found nothing to mention.",
        "## Caveats",
        "\n".join(f"- {escape(note)}" for note in wording.caveats(report)),
        "## How to reproduce",
        *(_details(step.title, _code(step)) for step in content.steps),
        "## How to read this",
        "\n".join(f"- **{escape(term)}**: {escape(meaning)}" for term, meaning in wording.GUIDE),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: object) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    plain = html.escape(" ".join(str(text).split("\n")), quote=False)
    return SPECIAL.sub(r"\\\1", plain)


def _answer(report: Report) -> Iterable[str]:
    yield "## The answer"
    yield from _groups(report.groups)
    if report.contrasts:
        yield "## FTICL against FT"
    yield from _groups(report.contrast_groups)


def _groups(groups: Sequence[TaskGroup]) -> Iterable[str]:
    for group in groups:
        verdict = wording.verdict(group.relations)
        yield f"**{escape(wording.title(group))}**: {escape(verdict)}."
        yield _sentences(group.relations)


def _findings(content: Content) -> str:
    lines = []
    for number, finding in enumerate(content.findings, start=1):
        lines.append(f"{number}. **{finding.verdict}**: {escape(finding.claim)}")
        for e in finding.evidence:
            p = "" if e.p_holm is None else f"; p (Holm) {wording.p_value(e.p_holm)}"
            lines.append(f"   - {escape(e.text + p)}")
    return "\n".join(lines)


def _plot(plot: Plot) -> Iterable[str]:
    yield f"## {plot.title}"
    yield f"![{escape(plot.caption)}]({plot.name}.png)"
    yield escape(plot.caption)


def _sentences(comparisons: list[Comparison]) -> str:
    return "\n".join(f"- {escape(wording.sentence(c))}" for c in wording.overall(comparisons))


def _summary(report: Report) -> str:
    rows = [
        [
            c.model,
            c.relation,
            wording.metric(c.metric),
            wording.shots(c),
            *_compared(c),
            *_sample(c),
        ]
        for recipe in report.recipes
        for c in recipe.relations
    ]
    header = ["model", "relation", "metric", "shots", *COMPARED, "detectable", "items"]
    return _table(header, rows, left=3)


def _compared(c: Comparison) -> list[str]:
    change = c.difference.value if c.difference else None
    p = c.difference.p_value if c.difference else None
    return [
        wording.percent(c.reference_value),
        wording.percent(c.value),
        wording.points(change),
        wording.interval(c),
        wording.p_value(p),
        wording.p_value(c.p_holm),
    ]


def _sample(c: Comparison) -> list[str]:
    return [
        wording.points(c.difference.detectable if c.difference else None, signed=False),
        str(c.n),
    ]


def _matrix(matrix: HeatMap) -> Iterable[str]:
    yield f"**{escape(matrix.title)}**"
    header = ["model", *(f"{c.dataset} ({c.group}, n = {c.n})" for c in matrix.columns)]
    rows = [
        [row.model, *("" if cell is None else cell for cell in row.cells)] for row in matrix.rows
    ]
    yield _table(header, rows, left=1)


def _cells(report: Report) -> str:
    rows = [
        [
            model.name, *map(str, cell.key), cell.relation,
            wording.metric(cell.metric), wording.percent(cell.value),
            wording.points(cell.stderr, signed=False), str(cell.n), str(cell.skipped),
        ]
        for model in report.models
        for cell in model.cells.values()
    ]  # fmt: skip
    header = [
        *("model", "task", "dataset", "shots", "prompt", "draw"),
        *("relation", "metric"),
        *("value", "stderr", "n", "skipped"),
    ]
    return _details(f"{len(rows)} cells", _table(header, rows, left=3))


def _changed_items(recipe: Recipe, content: Content) -> Iterable[str]:
    if not recipe.changed_items:
        return
    yield f"**{escape(wording.table_name(recipe))}**"
    counts = [
        [f.relation, wording.metric(f.metric), str(f.lost), str(f.gained), str(f.n)]
        for f in recipe.changed_items
    ]
    yield _table(["relation", "metric", "lost", "gained", "scored"], counts, left=2)
    examples = [
        row for changed_items in recipe.changed_items for row in _examples(changed_items, content)
    ]
    if examples:
        header = ["", "dataset", "shots", "prompt", "item", "input", "gold", "base", "tuned"]
        yield _details("Examples", _table(header, examples, left=9))


def _examples(changed_items: ChangedItems, content: Content) -> Iterable[list[str]]:
    pairs = (("lost", changed_items.lost_items), ("gained", changed_items.gained_items))
    for name, examples in pairs:
        for e in examples:
            place = [f"{e.key.task}/{e.key.dataset}", str(e.key.shots), str(e.key.prompt)]
            outputs = [e.tuned.gold, e.base.prediction, e.tuned.prediction]
            yield [name, *place, str(e.item_index), content.input_of(e), *outputs]


def _code(step: Step) -> str:
    config = f"\n\n```json\n{step.config.replace('```', '')}\n```" if step.config else ""
    return f"```sh\n{step.command.replace('```', '')}\n```{config}"


def _details(title: str, body: str) -> str:
    summary = html.escape(" ".join(title.split()), quote=False)
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str | HeatCell]], left: int) -> str:
    """A pipe table; all columns but the first `left` are aligned to the right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    lines = [[escape(name) for name in header], rule, *([_text(v) for v in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: str | HeatCell) -> str:
    if isinstance(value, str):
        return escape(value)
    styles = {"muted": f"({value.text})", "strong": f"**{value.text}**"}
    return styles.get(value.significance, value.text)
