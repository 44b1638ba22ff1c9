"""The plots of a report: changes over shots and sizes, probes, and drift."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from jft.data.rows.dataset_ref import DatasetRef
from jft.evaluation import stats
from jft.reporting import drawing, wording
from jft.reporting.compare import Recipe, Report
from jft.reporting.comparison import Comparison
from jft.reporting.drawing import Panel, Plot, Series
from jft.reporting.models import Run
from jft.tasks import OUT_OF_DOMAIN, OUT_OF_TASK, RELATIONS, TRANSFER, VALIDATION

SHOTS = (
    "Change against the base, in points, over the demonstrations before each test item; 95 % "
    "intervals. Where a task has training sets of several sizes, the largest."
)
SIZES = (
    "Change against the base, in points, over the examples trained on; 95 % intervals, averaged "
    "over shots."
)
PROBES = (
    "When it turns: a few held-out items during training. First how much less likely the gold "
    "answer became than it was to the base (nats a token, below zero is better), then how far the "
    "distribution of its first tokens went from the base's (KL divergence, nats). Bands: one "
    "standard error of either, over the items; where lines are means of several seeds, over these. "
    "Other tasks have a line each."
)
DRIFT = (
    "How far the weights went, |W - W0| / |W0| in thousandths, against what became of the "
    "out-of-domain sets, in points with 95 % intervals."
)
LAYERS = "Where the weights changed: |W - W0| / |W0| by layer and kind, in thousandths."

# Steps, values, and their standard errors.
Curve = tuple[list[float], list[float], list[float]]


def plots(report: Report) -> list[Plot]:
    """Draw the plots that the report has something to show in."""
    drawn = [
        drawing.plot("shots", "Over shots", SHOTS, _changes(report, _over_shots, "demonstrations")),
        drawing.plot("sizes", "Over data size", SIZES, _changes(report, _over_sizes, "examples")),
        drawing.plot("probes", "During training", PROBES, _probes(report), 4),
        drawing.plot("drift", "Drift and what it cost", DRIFT, _drift(report)),
        drawing.plot("layers", "Drift by layer", LAYERS, _layers(report)),
    ]
    return [plot for plot in drawn if plot]


# A kind of training, and the metric where a panel has two: lines of one training share a colour.
Line = tuple[str, str]
Points = list[tuple[float, Comparison]]


def _changes(
    report: Report, lines_of: Callable[[list[Recipe], str], dict[Line, Points]], x_label: str
) -> list[Panel]:
    """Plot changes: a row for each training task, and a panel for each relation."""
    panels = []
    for task, recipes in _by_task(report).items():
        row = []
        for relation in TRANSFER:  # the panel is asked with one number of shots
            lines = {k: v for k, v in lines_of(recipes, relation).items() if len(v) > 1}
            trainings = list(dict.fromkeys(training for training, _ in lines))
            series = [
                _series(", ".join(filter(None, line)), trainings.index(line[0]), points)
                for line, points in lines.items()
            ]
            if series:
                n = max(c.n for points in lines.values() for _, c in points)
                title = f"{relation}, trained on {task}, n = {n}"
                row.append(drawing.errorbars(title, series, x_label, _unit(lines.values())))
        panels += [*row, *[Panel("")] * (drawing.COLUMNS - len(row))] if row else []
    return panels


def _unit(lines: Iterable[Points]) -> str:
    """Name the unit of an axis: points, and of what, where all lines are of one metric."""
    found = {c.metric for points in lines for _, c in points}
    return f"{wording.metric(found.pop())}, points" if len(found) == 1 else "points"


def _over_shots(recipes: list[Recipe], relation: str) -> dict[Line, Points]:
    return {
        (training, name): [
            (float(c.shots), c)
            for c in recipe.relations
            if (c.relation, c.metric) == (relation, metric) and c.shots is not None and c.difference
        ]
        for training, recipe in _largest(recipes).items()
        for metric, name in _metrics(recipe, relation).items()
    }


def _over_sizes(recipes: list[Recipe], relation: str) -> dict[Line, Points]:
    lines: dict[Line, Points] = {}
    for recipe in sorted(recipes, key=_size):
        names = _metrics(recipe, relation)
        for c in wording.overall(recipe.relations):
            if c.relation == relation and c.difference and _size(recipe):
                line = (_training(recipe, recipes), names[c.metric])
                lines.setdefault(line, []).append((float(_size(recipe)), c))
    return lines


def _series(name: str, look: int, points: Points) -> Series:
    found = [(x, c.judged) for x, c in points if c.judged]
    return Series(
        name,
        look,
        [x for x, _ in found],
        [100 * d.value for _, d in found],
        [100 * d.low for _, d in found],
        [100 * d.high for _, d in found],
    )


def _metrics(recipe: Recipe, relation: str) -> dict[str, str]:
    """Name the metrics of a relation's sets; the name is empty where there is one only."""
    found = sorted({c.metric for c in recipe.relations if c.relation == relation})
    return {metric: wording.metric(metric) if len(found) > 1 else "" for metric in found}


def _probes(report: Report) -> list[Panel]:
    """Plot two panels for each kind of training."""
    panels = []
    for name, runs in _runs(report):
        if len({record["step"] for record in runs[0].probes}) > 1:
            probes = [run.probes for run in runs if run.probes]
            title = f"{name}\ngold answer"
            panels.append(_curves(title, probes, "nll_change", "nats a token"))
            panels.append(_curves("\nKL to the base", probes, "kl", "nats"))
    return panels


def _curves(title: str, runs: list[list[dict]], field: str, label: str) -> Panel:
    """Plot a line for each relation, and of other tasks for each task: they may go either way.

    The band is one standard error: over the trainings where there are several, otherwise over the
    items.
    """
    series = []
    relations = (VALIDATION, *RELATIONS)
    places = {(relations.index(p["relation"]), p["task"]) for p in runs[0]}
    for look, (number, task) in enumerate(sorted(places)):
        relation = relations[number]
        of = [
            [p for p in probes if (p["relation"], p["task"]) == (relation, task)] for probes in runs
        ]
        n = sum(p["n"] for p in of[0] if p["step"] == of[0][0]["step"])
        x, y, error = _mean_curve([_curve(probes, field) for probes in of])
        low, high = ([a + s * b for a, b in zip(y, error, strict=True)] for s in (-1, 1))
        name = task if relation == OUT_OF_TASK else relation
        series.append(Series(f"{name}, n = {n}", look, x, y, low, high))
    return drawing.bands(title, series, "optimizer step", label)


def _mean_curve(curves: list[Curve]) -> Curve:
    """Average the curves of several trainings, at the steps that all have."""
    if len(curves) == 1:
        return curves[0]
    values = [dict(zip(x, y, strict=True)) for x, y, _ in curves]
    steps = sorted(set.intersection(*map(set, values)))
    at = [[of[step] for of in values] for step in steps]
    return steps, [sum(y) / len(y) for y in at], [stats.standard_error(y) for y in at]


def _curve(probes: list[dict], field: str) -> Curve:
    """Average a probe over datasets: steps, means, and their standard errors."""
    x, y, error = [], [], []
    for step in sorted({probe["step"] for probe in probes}):
        now = [p for p in probes if p["step"] == step]
        x.append(float(step))
        y.append(sum(p[field] for p in now) / len(now))
        error.append(math.hypot(*(p[f"{field}_stderr"] or 0.0 for p in now)) / len(now))
    return x, y, error


def _drift(report: Report) -> list[Panel]:
    """Plot a panel for each training task, with a point for each recipe."""
    panels = []
    for task, recipes in _by_task(report).items():
        series, shown = [], []
        for recipe in recipes:
            distance = _mean([m.distance for m in recipe.models if m.distance is not None])
            changed = [c for c in wording.overall(recipe.relations) if c.relation == OUT_OF_DOMAIN]
            if distance > 0 and changed:
                size = f", {_size(recipe)}" if _size(recipe) else ""
                look = int(recipe.kind == "FTICL")
                point = [(1000 * distance, changed[0])]
                shown.append(point)
                series.append(_series(_training(recipe, recipes) + size, look, point))
        found = [each for each in series if each.x]
        if found:
            n = max(c.n for r in recipes for c in r.relations if c.relation == OUT_OF_DOMAIN)
            title, x_label = f"trained on {task}, n = {n}", "|W - W0| / |W0|, thousandths"
            label = f"out-of-domain, {_unit(shown)}"
            panels.append(drawing.errorbars(title, found, x_label, label, joined=False))
    return panels


def _layers(report: Report) -> list[Panel]:
    drifts = ((name, [run.drift for run in runs if run.drift]) for name, runs in _runs(report))
    return [_layer_map(name, found) for name, found in drifts if found]


def _layer_map(title: str, drifts: list[dict]) -> Panel:
    weights = [weight for drift in drifts for weight in drift["weights"]]
    matrices = [w for w in weights if w["layer"] is not None and w["full_rank"]]
    kinds = list(dict.fromkeys(w["kind"] for w in matrices))
    layers = sorted({w["layer"] for w in matrices})
    found: dict[tuple, list[float]] = {}
    for w in matrices:
        if w["relative_norm"] is not None:
            found.setdefault((w["kind"], w["layer"]), []).append(1000 * w["relative_norm"])
    values = [[_mean(found.get((kind, layer), [])) for layer in layers] for kind in kinds]
    return drawing.matrix(title, kinds, values, "layer")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _runs(report: Report) -> Iterable[tuple[str, list[Run]]]:
    """Find the runs, of all seeds, on the most examples of each kind of training."""
    for group in report.groups:
        for recipe in _largest(group.members).values():
            runs = [model.run for model in recipe.models if model.run]
            if runs:
                yield recipe.name, runs


def _by_task(report: Report) -> dict[str, list[Recipe]]:
    found: dict[str, list[Recipe]] = {}
    for recipe in report.recipes:
        found.setdefault(recipe.first.train_task or "", []).append(recipe)
    return found


def _largest(recipes: list[Recipe]) -> dict[str, Recipe]:
    """Find the recipe on the most examples of each kind of training."""
    order = sorted(recipes, key=lambda recipe: (recipe.first.train_shots, _size(recipe)))
    return {_training(recipe, recipes): recipe for recipe in order}


def _size(recipe: Recipe) -> int:
    return recipe.first.examples or 0


def _training(recipe: Recipe, recipes: list[Recipe]) -> str:
    """Name the kind of training, with the dataset where others were trained on another."""
    several = len({_dataset(each) for each in recipes}) > 1
    return recipe.trained_as + f" on {_dataset(recipe)}" * several


def _dataset(recipe: Recipe) -> str:
    return DatasetRef.parse(recipe.first.train or "").name
