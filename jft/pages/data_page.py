"""`data_report.html`: the findings and numbers of a data report, and one packed row of tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup, escape

from jft import pages
from jft.checkpoints.tokenizer import Tokenizer
from jft.data.eval_batches import PackedCells
from jft.data.eval_grid import Cell
from jft.data.train_batches import Batches
from jft.pages.examples import ExampleView, name_of, view_examples
from jft.pages.packed_row import HUES, Node, RowView, Token, view_row
from jft.runtime.progress import count
from jft.tasks import RETENTION_TASKS

SPACES = {" ": "\u00b7", "\n": "\u21b5", "\t": "\u2192", "\r": "\u240d"}
LENGTHS = ("min", "median", "p95", "max")


class Table(NamedTuple):
    """A table; the first `texts` columns are text, the others numbers.

    Attributes:
      columns: headings; none for a table of names and values.
    """

    caption: str
    columns: list[str]
    rows: list[list]
    texts: int = 1


def training_page(report: dict, batches: Batches, tokenizer: Tokenizer) -> str:
    """Render the page of a training run, with the first row of its first step."""
    packed = batches.packed[0]
    names = [name_of(batches, i) for i, _ in packed.rows[0]]
    row = view_row(packed.sequences[0], packed.shape.row_length, names, tokenizer.pieces)
    return _render(
        title="The data of this training run",
        lead=f"Task {report['task']}, {report['rows_trained_on']:,} of {report['rows']:,} rows of",
        source=report["file"],
        findings=report["findings"],
        tables=_training_tables(report),
        row=row,
        row_title="The first packed row of the first step",
        examples=view_examples(batches, tokenizer),
    )


def evaluation_page(report: dict, packed: PackedCells, tokenizer: Tokenizer) -> str:
    """Render the page of an evaluation, with the first row of some cells."""
    items = [(each.cell, index) for each in packed.cells for index in each.indices]
    names = [_item_name(*items[i], j) for i, j in packed.rows[0]]
    row = view_row(packed.sequences[0], packed.shape.row_length, names, tokenizer.pieces)
    return _render(
        title="The data of this evaluation",
        lead=f"{count(len(report['datasets']), 'dataset')} in "
        f"{count(len(report['cells']), 'cell')}, scored for",
        source=report["model"],
        findings=report["findings"],
        tables=[
            _dataset_table(report),
            _cell_table(report),
            Table("Packing", [], _packing_lines(report)),
        ],
        row=row,
        row_title=f"The first packed row of {_cell_name(packed.cells[0].cell)}",
    )


def _cell_name(cell: Cell) -> str:
    dataset = cell.dataset
    return f"{dataset.task.name}/{dataset.name} at {cell.shots} shots, prompt {cell.prompt}"


def _item_name(cell: Cell, index: int, sequence: int) -> str:
    labels = cell.dataset.task.labels
    which = f" with {labels[sequence]!r}" if labels else " with its reference" * sequence
    return f"{_cell_name(cell)}, item {index}{which}"


def _render(
    findings: list[dict], row: RowView, examples: Sequence[ExampleView] = (), **content
) -> str:
    environment = pages.environment(Path(__file__).parent)
    environment.filters |= {"visible": visible, "sentence": sentence}
    ranked = sorted(findings, key=lambda finding: finding["severity"] != "warning")
    return environment.get_template("data_report.html.jinja").render(
        findings=ranked,
        warnings=sum(finding["severity"] == "warning" for finding in findings),
        row=row,
        examples=examples,
        heading=_heading,
        hover=_hover,
        share=row.seen / (row.used * (row.used + 1) / 2),
        hues=HUES,
        **content,
    )


def visible(text: str) -> Markup:
    """Show white space and characters without a shape in the text of a token."""
    marks = [
        f"<i>{SPACES.get(char) or f'U+{ord(char):04X}'}</i>"
        if char in SPACES or not char.isprintable()
        else str(escape(char))
        for char in text
    ]
    return Markup("".join(marks))


def sentence(text: str) -> Markup:
    """Make a sentence of a finding's text, with the keys of the config set apart."""
    escaped = f"{escape(text[:1].upper() + text[1:])}."
    return Markup(re.sub(r"\b(?:data|eval)\.[a-z_]+(?:=\w+)?", r"<code>\g<0></code>", escaped))


def _heading(node: Node, row: RowView) -> str:
    first, last = node.tokens[0], node.tokens[-1]
    if len(node.sequences) == 1:
        owner = row.names[node.sequences[0]]
    elif len(node.sequences) == len(row.names):
        owner = f"in all {len(row.names)} sequences"
    else:
        owner = f"in {len(node.sequences)} sequences"
    index, position = _span(first.index, last.index), _span(first.position, last.position)
    parts = [owner, f"index {index}", f"position {position}"]
    parts.append(f"visible until {node.visible_until}")
    targets = Counter(target for token in node.tokens for target in token.targets)
    for target, times in targets.items():
        of = f" of {row.names[target.sequence]}" if len(node.sequences) > 1 else ""
        parts.append(f"{count(times, 'target')}{of}, weight {target.weight:g}")
    parts += [
        f"{row.names[entry.sequence]} is continued after {token.index}"
        for token in node.tokens
        for entry in token.continued
    ]
    return " \u00b7 ".join(parts)


def _hover(node: Node, token: Token, row: RowView) -> str:
    lines = [f"index {token.index}, position {token.position}"]
    lines.append(f"visible until {node.visible_until}")
    for entries, what in ((token.targets, "target of"), (token.continued, "continues")):
        lines += [f"{what} {row.names[e.sequence]}, weight {e.weight:g}" for e in entries]
    return "\n".join(lines)


def _training_tables(report: dict) -> list[Table]:
    rows = [
        ["Read", report["rows"]],
        ["Trained on", report["rows_trained_on"]],
        ["Held out for validation", report["held_out"]],
        ["Skipped, without a label of the task", report["skipped"]],
        ["Duplicates", report["duplicates"]],
        ["With contradictory labels", report["contradictory"]],
        ["With an empty input", report["empty_inputs"]],
        ["With a shortened input", report["shortened_inputs"]],
        ["With an answer that cutting the end would hurt", report["answers_cut"]],
    ]
    packing = [
        ["Optimizer steps", report["steps"]],
        ["Packed rows in a step, on average", f"{report['rows_per_step']:.1f}"],
        *_packing_lines(report),
    ]
    lengths = [
        [name, *(f"{report[key][column]:,.0f}" for column in LENGTHS)]
        for name, key in (("Whole sequence", "lengths"), ("Answer", "target_lengths"))
    ]
    labels = sum(report["labels"].values())
    shares = [[name, n, f"{n / labels:.1%}"] for name, n in sorted(report["labels"].items())]
    tables = [Table("Rows", [], rows), Table("Packing", [], packing)]
    if len(report["sets"]) > 1:
        columns = ["Set", "Task", "Rows", "Share", "Examples in all steps"]
        sets = [
            [each["dataset"], each["task"], each["rows"], f"{each['share']:.0%}", each["examples"]]
            for each in report["sets"]
        ]
        tables.append(Table("Training sets", columns, sets, 2))
    tables.append(Table("Tokens of an example", ["", *LENGTHS], lengths))
    return [*tables, Table("Labels", ["", "Rows", "Share"], shares)] if shares else tables


def _packing_lines(report: dict) -> list[list]:
    return [
        ["Packed rows", report["packed_rows"]],
        ["Tokens of a row", report["row_length"]],
        ["Tokens if nothing were shared", report["sequence_tokens"]],
        ["Tokens with shared prefixes", report["row_tokens"]],
        ["Sharing ratio", f"{report['sharing_ratio']:.2f}"],
        ["Packing efficiency", f"{report['packing_efficiency']:.1%}"],
        ["Target share", f"{report['target_share']:.2%}"],
    ]


def _dataset_table(report: dict) -> Table:
    counts = {
        "Rows": "rows",
        "Skipped": "skipped",
        "Duplicates": "duplicates",
        "Contradictory": "contradictory",
        "Empty input": "empty_inputs",
        "Among demos": "demos_among_items",
        "Trained on": "items_trained_on",
        "Shortened": "shortened_inputs",
    }
    rows = [
        [
            *(f"{each['task']}/{each['dataset']}", _labels(each["labels"])),
            *(each[key] for key in counts.values()),
        ]
        for each in report["datasets"]
    ]
    return Table("Datasets", ["Dataset", "Labels", *counts], rows, 2)


def _cell_table(report: dict) -> Table:
    columns = ["Cell", "Shots", "Draw", "Prompt", "Items", "Shortened", *LENGTHS]
    columns += ["Tokens unshared", "Tokens", "Sharing", "Targets"]
    rows = [
        [
            *(f"{each['task']}/{each['dataset']}", each["shots"], each["draw"], each["prompt"]),
            *(each["items"], each["shortened_inputs"], *_lengths(each)),
            *(each["sequence_tokens"], each["row_tokens"]),
            *(f"{each['sharing_ratio']:.2f}", f"{each['target_share']:.1%}"),
        ]
        for each in report["cells"]
        if each["task"] not in RETENTION_TASKS  # jft's own, of which some share their targets
    ]
    return Table("Cells; lengths in tokens, of prompt and label", columns, rows)


def _lengths(cell: dict) -> list[str]:
    return [f"{cell['lengths'][column]:,.0f}" for column in LENGTHS]


def _labels(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "\u2013"


def _span(first: int, last: int) -> str:
    return f"{first}\u2013{last}" if last > first else str(first)
