"""Plots of the report, drawn as PNG files, and as SVG inside the page.

Every line is named where it ends, and every interval drawn. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart, and never the only difference.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that a page replaces by its own, light or dark.
INK, QUIET, RULE = "#1d2228", "#646c75", "#dedad2"
PAGE_COLORS = {INK: "var(--ink)", QUIET: "var(--quiet)", RULE: "var(--rule)"}
LOOKS = (
    *(("#0072b2", "o", "-"), ("#d55e00", "s", "--"), ("#009e73", "^", ":")),
    *(("#cc79a7", "D", "-."), ("#56b4e9", "v", "-"), ("#b58900", "P", "--")),
)
STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names may hold dollars
    "axes.labelcolor": QUIET,
    "axes.edgecolor": RULE,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "svg.fonttype": "none",
    "svg.hashsalt": "jft",
}
PANEL = (3.4, 2.6)  # inches
COLUMNS = 3
DPI = 160


class Plot(NamedTuple):
    """A figure: its file's name without the ending, what it shows, and both its forms."""

    name: str
    title: str
    caption: str
    png: bytes
    svg: str


class Panel(NamedTuple):
    """A part of a figure: its title, and the function that draws it; by default an empty place."""

    title: str
    draw: Callable[[Axes], None] = Axes.set_axis_off


class Series(NamedTuple):
    """Points with intervals.

    Attributes:
      name: stands where it ends.
      look: a colour, a marker and a dash, by number.
      x, y, low, high: of each point, with the ends of its interval.
    """

    name: str
    look: int
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


def plot(
    name: str, title: str, caption: str, panels: Sequence[Panel], most_columns: int = COLUMNS
) -> Plot | None:
    """Draw panels in rows, as wide together as `COLUMNS` of them; None for no panels."""
    if not panels:
        return None
    columns = min(most_columns, len(panels))
    width = PANEL[0] * min(1.0, COLUMNS / columns)
    rows = -(-len(panels) // columns)
    with rc_context(STYLE):
        figure = Figure((width * columns, PANEL[1] * rows), layout="constrained")
        for place, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(panel.title)
            panel.draw(axes)
        png, svg = io.BytesIO(), io.StringIO()
        # Neither holds the time when it was made, so that the same results give the same files.
        figure.savefig(png, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Plot(name, title, caption, png.getvalue(), _for_page(svg.getvalue(), caption))


def errorbars(
    title: str, series: Sequence[Series], x_label: str, y_label: str, joined: bool = True
) -> Panel:
    """Draw points with their intervals, set apart a little where several have one place."""

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=QUIET, linewidth=0.8)
        every = sorted({x for each in series for x in each.x})
        apart = (every[-1] - every[0]) * 0.02 if joined else 0.0
        for number, each in enumerate(series):
            color, marker, dash = LOOKS[each.look % len(LOOKS)]
            x = [value + apart * (number - (len(series) - 1) / 2) for value in each.x]
            below = [y - low for y, low in zip(each.y, each.low, strict=True)]
            above = [high - y for y, high in zip(each.y, each.high, strict=True)]
            line = dash if joined else ""
            axes.errorbar(
                x, each.y, [below, above], color=color, marker=marker, linestyle=line, markersize=4
            )
        if joined:
            axes.set_xticks(every, [f"{x:g}" for x in every])
        else:
            axes.set_xlim(0, 1.3 * every[-1])  # what is alike looks alike
        _finish(axes, series, x_label, y_label, at_end=joined)

    return Panel(title, draw)


def bands(title: str, series: Sequence[Series], x_label: str, y_label: str) -> Panel:
    """Draw curves with their intervals as bands."""

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=QUIET, linewidth=0.8)
        for each in series:
            color, marker, dash = LOOKS[each.look % len(LOOKS)]
            axes.plot(each.x, each.y, color=color, marker=marker, linestyle=dash, markersize=3.5)
            axes.fill_between(each.x, each.low, each.high, color=color, alpha=0.15, linewidth=0)
        _finish(axes, series, x_label, y_label)

    return Panel(title, draw)


def matrix(title: str, names: list[str], values: list[list[float]], x_label: str) -> Panel:
    """Draw a named row for each list of values, by colour from dark (low) to light."""

    def draw(axes: Axes) -> None:
        # One outlier would leave the rest in the dark.
        most = float(np.nanquantile(values, 0.98))
        image = axes.imshow(
            values, aspect="auto", cmap="cividis", interpolation="nearest", vmax=most
        )
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(x_label)
        axes.spines[:].set_visible(False)
        figure = axes.get_figure()
        assert figure
        figure.colorbar(image, ax=axes, pad=0.02, extend="max").outline.set_visible(False)

    return Panel(title, draw)


def _finish(
    axes: Axes, series: Sequence[Series], x_label: str, y_label: str, at_end: bool = True
) -> None:
    """Label the axes, and each line at its end, so that no label covers another; or each point."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if not at_end:
        axes.margins(x=0.2, y=0.15)
        for each in series:
            color = LOOKS[each.look % len(LOOKS)][0]
            # Neighbours of the other look have their names on the other side.
            y, below = (each.low[-1], True) if each.look % 2 else (each.high[-1], False)
            axes.annotate(
                *(each.name, (each.x[-1], y), (0, -4 if below else 4)),
                textcoords="offset points",
                color=color,
                ha="center",
                va="top" if below else "bottom",
                fontsize=7.5,
            )
        return
    axes.margins(y=0.12)
    left = min((x for each in series for x in each.x), default=0.0)
    right = max((x for each in series for x in each.x), default=1.0)
    axes.set_xlim(left - 0.06 * (right - left or 1), right + 0.45 * (right - left or 1))
    low, high = axes.get_ylim()
    taken = -float("inf")
    for each in sorted(series, key=lambda each: each.y[-1]):
        y = max(each.y[-1], taken + 0.09 * (high - low))
        taken = y
        color = LOOKS[each.look % len(LOOKS)][0]
        place = (each.x[-1] + 0.05 * (right - left or 1), y)
        axes.annotate(each.name, place, color=color, va="center", fontsize=8)


def _for_page(svg: str, caption: str) -> str:
    """Cut a file of SVG down to the drawing, in the page's colours."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows these names
    for color, variable in PAGE_COLORS.items():
        svg = svg.replace(color, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(caption)}" ', 1)
