"""`report.md`: the report as GitHub renders it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from jft.reporting import wording
from jft.reporting.compare import Comparison, Flips, Report, Subject
from jft.reporting.heatmap import HeatCell, heatmap

SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$])")
COMPARED = ("base", "tuned", "change", "95 % interval", "p", "p (Holm)")


def render(report: Report) -> str:
    """The whole report as GitHub-flavoured Markdown."""
    parts = [
        "# What the fine-tuning did",
        escape(wording.introduction(report)),
        *(f"> {escape(gap)}" for gap in report.gaps),
        *_answer(report),
        "## Summary",
        _summary(report),
        "## Change by dataset",
        "In points, averaged over prompts; base rows hold the metric itself. **Bold**: adjusted "
        "p < 0.05; (in brackets): the interval holds zero.",
        _heatmap(report),
        "## All cells",
        _cells(report),
        "## Lost and gained items",
        *(part for subject in report.subjects for part in _flips(subject)),
        "## Caveats",
        "\n".join(f"- {escape(note)}" for note in wording.caveats(report)),
        "## How to reproduce",
        *_configs(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: object) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    plain = html.escape(" ".join(str(text).split("\n")), quote=False)
    return SPECIAL.sub(r"\\\1", plain)


def _answer(report: Report) -> Iterable[str]:
    yield "## The answer"
    for subject in report.subjects:
        verdict = wording.verdict(subject.relations)
        yield f"**{escape(wording.title(subject.model))}**: {escape(verdict)}."
        yield _sentences(subject.relations)
    if report.contrasts:
        yield "### FTICL against FT"
    for contrast in report.contrasts:
        verdict = wording.verdict(contrast.relations)
        yield f"**{escape(wording.contrast_title(contrast))}**: {escape(verdict)}."
        yield _sentences(contrast.relations)


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
        for subject in report.subjects
        for c in subject.relations
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
    return [wording.points(c.difference.detectable if c.difference else None).lstrip("+"), str(c.n)]


def _heatmap(report: Report) -> str:
    table = heatmap(report)
    header = ["model", "shots", *(f"{c.dataset} ({c.group})" for c in table.columns)]
    rows = [
        [row.model, str(row.shots), *("" if cell is None else cell for cell in row.cells)]
        for row in table.rows
    ]
    return _table(header, rows, left=1)


def _cells(report: Report) -> str:
    models = [*report.bases, *(subject.model for subject in report.subjects)]
    rows = [
        [
            model.name, cell.key.task, cell.key.dataset, str(cell.key.shots), str(cell.key.prompt),
            cell.relation, wording.metric(cell.key.metric), wording.percent(cell.value),
            wording.points(cell.stderr).lstrip("+"), str(cell.n), str(cell.skipped),
        ]
        for model in models
        for _, cell in sorted(model.cells.items())
    ]  # fmt: skip
    header = [
        *("model", "task", "dataset", "shots", "prompt", "relation", "metric"),
        *("value", "stderr", "n", "skipped"),
    ]
    return _details(f"{len(rows)} cells", _table(header, rows, left=3))


def _flips(subject: Subject) -> Iterable[str]:
    if not subject.flips:
        return
    yield f"**{escape(wording.table_name(subject))}**"
    counts = [
        [f.relation, wording.metric(f.metric), str(f.lost), str(f.gained), str(f.n)]
        for f in subject.flips
    ]
    yield _table(["relation", "metric", "lost", "gained", "scored"], counts, left=2)
    examples = [row for flips in subject.flips for row in _examples(flips)]
    if examples:
        header = ["", "dataset", "shots", "prompt", "item", "gold", "base", "tuned"]
        yield _details("Examples", _table(header, examples, left=8))


def _examples(flips: Flips) -> Iterable[list[str]]:
    pairs = (("lost", flips.lost_examples), ("gained", flips.gained_examples))
    for name, examples in pairs:
        for e in examples:
            place = [f"{e.key.task}/{e.key.dataset}", str(e.key.shots), str(e.key.prompt)]
            outputs = [e.tuned.gold, e.base.prediction, e.tuned.prediction]
            yield [name, *place, str(e.item), *outputs]


def _configs(report: Report) -> Iterable[str]:
    yield "Each evaluation is `python -m jft.eval --config=CONFIG --workdir=FOLDER` with:"
    for model in [*report.bases, *(subject.model for subject in report.subjects)]:
        for folder, config in model.configs.items():
            step = "" if model.step is None else f", step {model.step}"
            title = f"{model.name}: {model.path}{step}; scored in {folder}"
            yield _details(title, f"```json\n{config.replace('```', '')}\n```" if config else "")


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
