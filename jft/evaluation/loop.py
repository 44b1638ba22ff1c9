"""The evaluation: every dataset at every number of shots with every draw and prompt."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from jft import config as config_lib
from jft.checkpoints.session import Session, open_session
from jft.checkpoints.tokenizer import Tokenizer
from jft.data import checks, eval_batches, eval_grid, token_checks
from jft.data.eval_batches import PackedCells
from jft.data.eval_cells import EncodedCell
from jft.data.eval_grid import Cell
from jft.data.evaluation_report import evaluation_report
from jft.data.rows import datasets
from jft.errors import UserError
from jft.evaluation import compiled, generation, metrics, results
from jft.evaluation.compiled import CompiledModel
from jft.pages import data_page
from jft.runtime import processes, records
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import Bar, count, phase, say
from jft.tasks import CHOICE, LABELS, RETENTION_TASKS, TEXT

T = TypeVar("T")
Inputs = dict[records.Key, dict]
# Of (task, name) of every test set.
Relations = dict[tuple[str, str], str]

# How to say that a finished cell was made from something else.
CHANGED = {
    "step": "{path} has been trained on",
    "model_sha256": "the model {path} has changed",
    "rows_sha256": "its rows have changed",
    "prompt_sha256": "its template, its demonstrations or the chat template have changed",
}


def evaluate(config: config_lib.Config, workdir: str, dry_run: bool = False) -> None:
    """Score one model on the grid, leaving out the cells that are finished already.

    A dry run ends when the data is checked and the plan is made, before the model is loaded.

    Raises:
      UserError: config, data, model or workdir are not fit for it; the message says why.
    """
    _main_metrics(config)  # mistakes are told before slow work
    _answer_pattern(config)
    session = open_session(config)
    ref = session.model
    if not ref.finished:
        say(f"note: {config.model.path} stopped at step {ref.step}; this scores that step")
    cells = eval_grid.all_cells(config)
    sets = [cell.dataset for cell in cells]
    eval_grid.check_in_domain(config, sets)
    related = eval_grid.relations(config, sets, results.training_sets(ref))
    of_model = {"step": ref.step, "model_sha256": ref.fingerprint()}
    inputs = {results.cell_key(cell): _inputs(session, cell) for cell in cells}
    processes.agree("data", functools.partial(_facts, session, of_model, inputs))
    with workdir_lib.claim(workdir, config, "jft.eval") as folder:
        finished = _finished(folder, ref.path, of_model, inputs)
        todo = [cell for cell in cells if results.cell_key(cell) not in finished]
        if not todo and not dry_run:
            say(f"Finished: {folder} holds all {len(cells)} cells")
            return
        if finished:
            say(f"Going on: {len(cells) - len(todo)} of {len(cells)} cells are finished")
        with phase("Reading the data"):
            wanted = _wanted(config, session, cells, inputs)
            encoded, packed = eval_batches.plan_cells(wanted)
        items = [each for cell in encoded for each in cell.encoded]
        token_checks.check_tokens(items, session.tokenizer, *ref.decoder.limits, ref.path)
        ref.check(session.mesh)
        _report(config, session, folder, encoded, packed, related)
        if dry_run:
            say(f"Dry run: nothing was scored; {folder / 'data_report.html'} shows the data")
            return
        _score_cells(config, session, folder, packed, finished, of_model, related)
        say(f"Done: {count(len(cells), 'cell')} in {folder}")


def _facts(session: Session, of_model: dict, inputs: Inputs) -> dict[str, str]:
    """Collect what all processes of a run need to have in common before it begins."""
    rows = {key: of_cell["rows_sha256"] for key, of_cell in inputs.items()}
    prompts = {key: of_cell["prompt_sha256"] for key, of_cell in inputs.items()}
    return {
        "model": str(of_model["model_sha256"]),
        "step of the model": str(of_model["step"]),
        "tokenizer": session.tokenizer.sha256(),
        **{f"rows of {key.task}/{key.dataset}": each for key, each in rows.items()},
        **{f"template or demonstrations of {key}": each for key, each in prompts.items()},
    }


def _inputs(session: Session, cell: Cell) -> dict:
    template = session.tokenizer.chat_template if cell.chat else None
    return results.cell_inputs(cell, session.config.eval.limit, template)


def _wanted(
    config: config_lib.Config, session: Session, cells: list[Cell], inputs: Inputs
) -> eval_batches.Wanted:
    """Describe the batches of an evaluation by all that they depend on."""
    settings = [config_lib.to_dict(config)[section] for section in ("data", "eval")]
    tokens = [list(inputs.values()), session.tokenizer.sha256(), settings]
    return eval_batches.Wanted(
        workdir_lib.sha256(tokens),
        *session.packing,
        cells=cells,
        tokenizer=session.tokenizer,
        config=config,
    )


def _report(
    config: config_lib.Config,
    session: Session,
    folder: Path,
    cells: list[EncodedCell],
    packed: list[PackedCells],
    related: Relations,
) -> None:
    """Print what is wrong with the data, and the plan; leave both in the workdir."""
    with phase("Checking the data"):
        name = results.model_name(config, session.model)
        train = results.training_sets(session.model)
        decisions = eval_grid.tell_relations(config, related, train)
        if session.model.run and session.model.trained_on is None:
            text = "which test items it was trained on is not known: its trained_on.txt is gone"
            of = len(cells)
            decisions.append(
                checks.DataFinding("warning", "test_items_trained_on", name, of, of, [], text)
            )
        if run := session.model.run:
            tasks = {task for task, _ in train or ()}
            asked = [(each.cell.dataset.task, each.cell.template) for each in cells]
            decisions += token_checks.asked_otherwise(
                run.data.answer_tokens,
                config.data.answer_tokens,
                session.tokenizer,
                [(task, text) for task, text in asked if task.name in tasks],
                name,
            )
            chats = [(each.cell.dataset.task, each.cell.chat) for each in cells]
            decisions += token_checks.asked_in_other_form(run.data, chats, train, name)
        report = evaluation_report(
            name, cells, packed, config, session.model.trained_on, session.tokenizer, decisions
        )
        records.write(folder, records.DATA_REPORT, report)
        page = data_page.evaluation_page(report, packed[0], session.tokenizer)
        workdir_lib.write_text(folder / "data_report.html", page)
    checks.say_warnings(report["findings"], "data_report.html")
    items = sum(len(cell.indices) for cell in cells)
    say(
        f"{count(len(cells), 'cell')}, {items} items in {report['packed_rows']} packed "
        f"rows; {report['row_tokens']} tokens, which would be {report['sequence_tokens']} without "
        "shared prefixes"
    )


def _score_cells(
    config: config_lib.Config,
    session: Session,
    folder: Path,
    packed: list[PackedCells],
    finished: set[records.Key],
    of_model: dict,
    related: Relations,
) -> None:
    """Load the model, score the cells that are not finished, and record each when it is whole."""
    ref, tokenizer = session.model, session.tokenizer
    with phase("Loading the model"):
        decoder, params = ref.load(session.mesh, session.dtype)
        model = CompiledModel(
            decoder, params, session.mesh, session.dtype, config.eval.max_new_tokens
        )
    record = results.model_record(config, ref, of_model | {"bos": bool(tokenizer.prefix)})
    records.write(folder, records.SCORED_MODEL, record)
    name, pattern = record["model"], _answer_pattern(config)
    main = _main_metrics(config)
    todo = [each.only(lambda cell: results.cell_key(cell) not in finished) for each in packed]
    with Bar(f"Scoring {name}", sum(len(each.encoded) for each in todo)) as bar:
        for group in filter(lambda each: each.cells, todo):
            for cell, items in _items(name, model, group, tokenizer, pattern, bar):
                records.append(folder, records.ROWS, items)
                dataset = cell.cell.dataset
                relation = related[dataset.task.name, dataset.name]
                metric = main.get(dataset.task.name, "")
                of_cell = results.cell_record(name, cell, items, ref, relation, metric)
                of_cell |= _inputs(session, cell.cell)
                records.append(folder, records.CELLS, [of_cell])


def _main_metrics(config: config_lib.Config) -> dict[str, str]:
    tasks = datasets.suite(config.data).tasks
    found = metrics.main_metrics("eval.metric", config.eval.metric, tasks)
    if "pattern" in found.values() and not config.eval.answer_pattern:
        raise UserError(
            "eval.metric: pattern goes by eval.answer_pattern, which is empty; set it, such as "
            "'#### (.*)'"
        )
    return found


def _answer_pattern(config: config_lib.Config) -> re.Pattern | None:
    pattern = config.eval.answer_pattern
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise UserError(f"eval.answer_pattern={pattern}: no regular expression: {error}") from None


def _place(cell: Cell) -> str:
    name = cell.dataset.name
    return name if cell.dataset.task.name in RETENTION_TASKS else f"{name} at {cell.shots} shots"


def _items(
    name: str,
    model: CompiledModel,
    packed: PackedCells,
    tokenizer: Tokenizer,
    pattern: re.Pattern | None,
    bar: Bar,
) -> Iterator[tuple[EncodedCell, list[dict]]]:
    """Score items as the kind of their task wants it, and yield the records of each cell."""
    kind = packed.cells[0].cell.dataset.task.kind

    def scored(found: Iterator[tuple[int, T]]) -> Iterator[tuple[EncodedCell, list[T]]]:
        return packed.by_cell(found, lambda cell: bar.advance(_place(cell)))

    if kind in (LABELS, CHOICE):
        for cell, scores in scored(compiled.score_answers(model, packed)):
            yield cell, results.answer_records(name, cell, scores)
    elif kind == TEXT:
        for cell, readings in scored(compiled.read_texts(model, packed)):
            yield cell, results.reading_records(name, cell, readings)
    else:
        for cell, texts in scored(generation.generate(model, packed, tokenizer)):
            yield cell, results.text_records(name, cell, texts, model.max_new_tokens, pattern)


def _finished(folder: Path, path: str, of_model: dict, inputs: Inputs) -> set[records.Key]:
    """Find the cells that are whole; items of a cell that a kill cut short are dropped.

    Raises:
      UserError: the model, the rows or the prompts are not those of the finished cells any more.
    """
    finished = {records.key(cell): cell for cell in records.keep_lines(folder, records.CELLS)}
    if finished:
        scored = records.read_scored_model(folder)
        _check_same(folder, path, scored["model"], scored, of_model)
    for key in finished.keys() & inputs.keys():
        _check_same(folder, path, str(key), finished[key], inputs[key])
    items = records.keep_lines(folder, records.ROWS, lambda item: records.key(item) in finished)
    counts = Counter(map(records.key, items))
    whole = {key for key, cell in finished.items() if counts[key] == cell["n"]}
    if whole != finished.keys():
        for kind in (records.CELLS, records.ROWS):
            records.keep_lines(folder, kind, lambda record: records.key(record) in whole)
    return whole


def _check_same(folder: Path, path: str, what: str, before: dict, now: dict) -> None:
    for name, value in now.items():
        if before[name] != value:
            raise UserError(
                f"--workdir={folder} holds scores of {what}, but "
                f"{CHANGED[name].format(path=path)} since; remove it, or choose another workdir"
            )
