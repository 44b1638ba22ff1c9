"""The report's numbers as CSV, for further analysis."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from jft.reporting.content import Content
from jft.reporting.pairs import CHOICES, Comparison

COMPARISON = (
    *("level", "model", "reference", "relation", "task", "dataset", "shots", "prompt", "draw"),
    *("metric", "value", "reference_value", "difference", "low", "high", "p_value", "p_holm"),
    *("detectable", *(f"sd_{name}" for name in CHOICES), "n"),
)
CELL = (
    *("model", "task", "dataset", "shots", "prompt", "draw", "relation", "metric", "value"),
    *("stderr", "n", "skipped"),
)
CELL_FIELDS = ("relation", "metric", "value", "n", "skipped")
WEIGHT = ("model", "layer", "kind", "relative_norm", "cosine", "effective_rank", "full_rank")


def render(content: Content) -> dict[str, str]:
    """The files by name; metrics and differences as fractions of 1.

    In `comparisons.csv` the p-values of each `level` are adjusted together. An empty `task`,
    `dataset`, `shots`, `prompt` or `draw` means the mean over several; an empty `reference` that
    there was nothing to compare with.
    """
    return {
        "comparisons.csv": _csv(COMPARISON, map(_comparison, content.report.comparisons)),
        "cells.csv": _csv(CELL, _cells(content)),
        "drift.csv": _csv(WEIGHT, _weights(content)),
    }


def _comparison(comparison: Comparison) -> dict:
    known = {name: getattr(comparison, name, None) for name in COMPARISON}
    difference = comparison.difference
    if difference is not None:
        fields = ("low", "high", "p_value", "detectable")
        known |= {name: getattr(difference, name) for name in fields}
        known["difference"] = difference.value
    return known | {f"sd_{name}": spread.value for name, spread in comparison.spreads.items()}


def _cells(content: Content) -> Iterable[dict]:
    for model in content.report.models:
        for key, cell in model.cells.items():
            fields = {name: getattr(cell, name) for name in CELL_FIELDS}
            # A single item has no standard error.
            stderr = cell.stderr if cell.stderr == cell.stderr else None
            yield key._asdict() | fields | {"model": model.name, "stderr": stderr}


def _weights(content: Content) -> Iterable[dict]:
    """One line for each weight of each run, and one without a layer and a kind for all of them."""
    for model in content.report.models:
        drift = model.drift
        if drift:
            for weight in ({"layer": None, "kind": "all"} | drift["all"], *drift["weights"]):
                yield {"model": model.name} | weight


def _csv(columns: Sequence[str], lines: Iterable[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
