"""`comparisons.csv`: every comparison as a line, for further analysis."""

from __future__ import annotations

import csv
import io

from jft.reporting.compare import Report
from jft.reporting.pairs import Comparison

COLUMNS = (
    *("level", "model", "reference", "relation", "task", "dataset", "shots", "prompt", "draw"),
    *("metric", "value", "reference_value", "difference", "low", "high", "p_value", "p_holm", "n"),
)


def render(report: Report) -> str:
    """One line for each comparison; metrics and differences as fractions of 1.

    An empty `task`, `dataset`, `shots` or `prompt` means the mean over several; an empty
    `reference` means that there was nothing to compare with.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_line(comparison) for comparison in report.comparisons)
    return text.getvalue()


def _line(comparison: Comparison) -> dict:
    known = {name: getattr(comparison, name, None) for name in COLUMNS}
    difference = comparison.difference
    if difference is not None:
        fields = ("low", "high", "p_value")
        known |= {name: getattr(difference, name) for name in fields}
        known["difference"] = difference.value
    return known
