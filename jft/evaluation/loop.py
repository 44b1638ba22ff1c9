"""The evaluation: every dataset at every number of shots with every draw and prompt."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jft import config as config_lib
from jft.checkpoints.model_ref import ModelRef
from jft.checkpoints.session import Session, open_session
from jft.checkpoints.tokenizer import Tokenizer
from jft.data import checks, data_report, eval_batches
from jft.data.eval_batches import PackedCell
from jft.data.eval_grid import all_cells
from jft.errors import UserError
from jft.evaluation import generation, label_scores
from jft.evaluation import results as cells_lib
from jft.evaluation.compiled import CompiledModel
from jft.pages import data_page
from jft.runtime import records
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import Bar, phase, say

Inputs = dict[records.Key, dict]

# What a finished cell was made from, and what to say where it is not the same any more.
CHANGED = {
    "step": "{path} has been trained on",
    "model_sha256": "the model {path} has changed",
    "rows_sha256": "its rows have changed",
    "prompt_sha256": "its template or its demonstrations have changed",
}


def evaluate(config: config_lib.Config, workdir: str, dry_run: bool = False) -> None:
    """Score one model on the grid, leaving out the cells that are finished already.

    A dry run ends when the data is checked and the plan is made, before the model is loaded.

    Raises:
      UserError: config, data, model or workdir are not fit for it; the message says why.
    """
    session = open_session(config)
    model = session.model
    if not model.finished:
        say(f"note: {config.model.path} stopped at step {model.step}; this scores that step")
    cells = all_cells(config)
    sha256 = model.fingerprint()
    inputs = {
        cells_lib.key(cell): cells_lib.inputs(model, sha256, cell, config.eval.limit)
        for cell in cells
    }
    with workdir_lib.claim(workdir, config, "jft.eval") as folder:
        finished = _finished(folder, model, inputs)
        todo = [cell for cell in cells if cells_lib.key(cell) not in finished]
        if not todo and not dry_run:
            say(f"Finished: {folder} holds all {len(cells)} cells")
            return
        if finished:
            say(f"Going on: {len(cells) - len(todo)} of {len(cells)} cells are finished")
        with phase("Reading the data"):
            tokenizer, shards = session.tokenizer, session.row_shards
            planned = [eval_batches.pack_cell(cell, tokenizer, config, shards) for cell in cells]
        _report(config, session, folder, planned)
        if dry_run:
            say(f"Dry run: nothing was scored; {folder / 'data_report.html'} shows the data")
            return
        planned = [each for each in planned if cells_lib.key(each.cell) not in finished]
        _score_cells(config, session, folder, planned, inputs)
        say(f"Done: {len(cells)} cells in {folder}")


def _report(
    config: config_lib.Config, session: Session, folder: Path, planned: list[PackedCell]
) -> None:
    """Print what is wrong with the data, and the plan; leave both in the workdir."""
    with phase("Checking the data"):
        name = cells_lib.model_name(config, session.model)
        report = data_report.evaluation_report(name, planned, config, session.model.trained_on)
        workdir_lib.write_json(folder / "data_report.json", report)
        page = data_page.evaluation_page(report, planned, session.tokenizer)
        workdir_lib.write_text(folder / "data_report.html", page)
    checks.say_warnings(report["findings"], "data_report.html")
    sizes = ("items", "packed_rows", "row_tokens", "sequence_tokens")
    total = {size: sum(cell[size] for cell in report["cells"]) for size in sizes}
    say(
        f"{len(planned)} cells, {total['items']} items in {total['packed_rows']} packed rows; "
        f"{total['row_tokens']} tokens, which would be {total['sequence_tokens']} without shared "
        "prefixes"
    )


def _score_cells(
    config: config_lib.Config,
    session: Session,
    folder: Path,
    planned: list[PackedCell],
    inputs: Inputs,
) -> None:
    """Load the model, score each cell, and record it when it is whole."""
    model, tokenizer = session.model, session.tokenizer
    training = cells_lib.Training(model) if model.run else None
    with phase("Loading the model"):
        decoder, params = model.load(session.mesh, session.dtype)
        encoded = [each for cell in planned for each in cell.encoded]
        checks.check_tokens(encoded, *decoder.limits, model.path)
        program = CompiledModel(
            decoder, params, session.mesh, session.dtype, config.eval.max_new_tokens
        )
    name = cells_lib.model_name(config, model)
    with Bar(f"Scoring {name}", sum(len(cell.encoded) for cell in planned)) as bar:
        for cell in planned:
            label = f"{cell.cell.dataset.name} at {cell.cell.shots} shots"
            rows = _rows(name, program, cell, tokenizer, functools.partial(bar.advance, label))
            workdir_lib.append_jsonl(folder / "rows.jsonl", rows)
            record = (
                cells_lib.record(name, model, cell, rows, training)
                | {"bos": bool(tokenizer.prefix)}
                | inputs[cells_lib.key(cell.cell)]
            )
            workdir_lib.append_jsonl(folder / "cells.jsonl", [record])


def _rows(
    name: str,
    model: CompiledModel,
    cell: PackedCell,
    tokenizer: Tokenizer,
    advance: Callable[[int], None],
) -> list[dict]:
    if cell.cell.dataset.task.labels:
        return cells_lib.label_rows(name, cell, label_scores.score(model, cell, advance))
    texts = generation.generate(model, cell, tokenizer, advance)
    return cells_lib.text_rows(name, cell, texts, model.max_new_tokens)


def _finished(folder: Path, model: ModelRef, inputs: Inputs) -> set[records.Key]:
    """The cells that are whole; items of a cell that a kill cut short are dropped.

    Raises:
      UserError: the model, the rows or the prompts are not those of the finished cells any more.
    """
    file = folder / "cells.jsonl"
    finished = {records.key(cell): cell for cell in workdir_lib.keep_jsonl(file, records.CELL)}
    for key in finished.keys() & inputs.keys():
        changed = [name for name, now in inputs[key].items() if finished[key].get(name) != now]
        if changed:
            raise UserError(
                f"--workdir={folder} holds scores of {key}, but "
                f"{CHANGED[changed[0]].format(path=model.path)} since; remove it, or choose "
                "another workdir"
            )
    rows = workdir_lib.keep_jsonl(
        folder / "rows.jsonl", records.ROW, lambda record: records.key(record) in finished
    )
    counts = Counter(map(records.key, rows))
    whole = {key for key, cell in finished.items() if counts[key] == cell["n"]}
    if whole != finished.keys():
        for name in ("cells.jsonl", "rows.jsonl"):
            workdir_lib.keep_jsonl(folder / name, records.GRID, lambda r: records.key(r) in whole)
    return whole
