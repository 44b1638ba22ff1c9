"""The dry run of a study: its jobs, their tokens exactly, and about how long they will take.

Times are estimates: one batch of each kind of work is timed on the model itself.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from jft import config as config_lib
from jft.batch import Shape
from jft.checkpoints.session import Session, open_session
from jft.data import (
    checks,
    eval_batches,
    eval_cells,
    probe_batches,
    train_batches,
)
from jft.data.eval_batches import PackedCells
from jft.data.eval_cells import EncodedCell
from jft.data.eval_grid import all_cells, relations
from jft.data.evaluation_report import evaluation_report
from jft.data.packed import count_batches
from jft.data.rows import datasets
from jft.data.train_batches import Batches
from jft.data.training_report import training_report
from jft.errors import UserError
from jft.evaluation import generation, stats
from jft.evaluation.compiled import CompiledModel
from jft.model import mesh as mesh_lib
from jft.model.decode import Stops
from jft.runtime import records
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import Bar, duration, phase, say
from jft.studies.entries import Entry, Job, entries
from jft.tasks import RETENTION_TASKS, TRANSFER
from jft.training import start
from jft.training import step as step_lib

# Seconds that a job is allowed besides its work and loading the model: to plan its data, to save,
# and to compile what no job before it has compiled.
START_SECONDS = 5.0
NUMBERS = ("sequence_tokens", "row_tokens", "new_tokens", "seconds")


class PlannedJob(NamedTuple):
    """A job, planned as the job itself would.

    Attributes:
      name: name of the job, as in `jobs.jsonl`.
      reports: data reports, which count the tokens of its sequences and of its packed rows.
      work: tokens by kind of work: `training` and `scoring` count those that are computed, padding
        included, `generation` those that are generated at most.
    """

    name: str
    reports: list[dict]
    work: Counter[str]


def dry_run(config: config_lib.Config, workdir: str) -> None:
    """Print a study's jobs with their tokens and times, and write them to `dry_run.json`.

    Raises:
      UserError: the config is unfit for a study.
    """
    with workdir_lib.claim(workdir, config, "jft.study") as claimed:
        folder = claimed.resolve()
        study = entries(config, folder)
        session = open_session(config)
        jobs, runs, packed, findings = _plan(study, session)
        job_seconds, token_seconds = _measure(session, runs, packed)
        cells = [cell for each in packed for cell in each.cells]
        found = [_record(job, job_seconds, token_seconds) for job in jobs]
        content = {
            "models": len(study),
            "cells_per_model": len(cells),
            "jobs": found,
            "seconds": sum(record["seconds"] for record in found),
            "findings": findings,
            "job_seconds": job_seconds,
            "token_seconds": token_seconds,
        }
        records.write(folder, records.DRY_RUN, content)
        checks.say_warnings(findings, "dry_run.json")
        _show(len(study), len(cells), found)
        if runs:
            _show_power(config, runs[0], cells)


def _record(job: PlannedJob, job_seconds: float, token_seconds: dict[str, float]) -> dict:
    """Sum up the tokens of a job, and estimate its seconds on this machine."""
    seconds = sum(number * token_seconds.get(kind, 0.0) for kind, number in job.work.items())
    return {
        "job": job.name,
        "sequence_tokens": sum(report["sequence_tokens"] for report in job.reports),
        "row_tokens": sum(report["row_tokens"] for report in job.reports),
        "new_tokens": job.work["generation"],
        "seconds": job_seconds + seconds,
    }


def _plan(
    study: list[Entry], session: Session
) -> tuple[list[PlannedJob], list[Batches], list[PackedCells], list[dict]]:
    """Plan all jobs, in the order in which they run; a training that would fail is named.

    Returns:
      The other jobs, the batches of each training and of every model's evaluation, and
      what the checks of all data found, each thing once.
    """
    seen = session.model.trained_on
    jobs: list[PlannedJob] = []
    runs: list[Batches] = []
    findings: list[dict] = []
    with Bar("Planning", len(study)) as bar:
        scoring, packed, report = _plan_scoring(study[0], session)
        bar.advance("scoring")
        for entry in study:
            if entry.training:
                try:
                    job, run = _plan_training(entry, entry.training, session, seen)
                except UserError as error:
                    say(f"{entry.name} would fail: {error}")
                    continue
                finally:
                    bar.advance(entry.name)
                jobs.append(job)
                runs.append(run)
                findings += job.reports[0]["findings"]
            jobs.append(scoring._replace(name=f"jft.eval {entry.name}"))
    findings += report["findings"]
    once = {(finding["where"], finding["text"]): finding for finding in findings}
    return jobs, runs, packed, list(once.values())


def _plan_training(
    entry: Entry, job: Job, session: Session, seen: frozenset[str] | None
) -> tuple[PlannedJob, Batches]:
    """Plan a training with its probes; returns its batches, too."""
    config, tokenizer, packing = job.config, session.tokenizer, session.packing
    run = train_batches.plan_run(config, tokenizer, *packing)
    probes = probe_batches.plan_probes(config, tokenizer, run.datasets, run.valid, seen, *packing)
    report = training_report(run, datasets.suite(config.data), config, tokenizer)
    work = Counter(training=_computed_tokens(run.micro_batches))
    if probes:
        probed_steps = {*range(0, run.steps, config.probe.every or run.steps), run.steps}
        work["scoring"] = len(probed_steps) * _computed_tokens(count_batches([probes]))
    return PlannedJob(f"jft.train {entry.name}", [report], work), run


def _plan_scoring(entry: Entry, session: Session) -> tuple[PlannedJob, list[PackedCells], dict]:
    """Plan the evaluation of a model, with its cells and its data report."""
    config, tokenizer = entry.scoring.config, session.tokenizer
    cells = [eval_cells.encode_cell(cell, tokenizer, config) for cell in all_cells(config)]
    packed = eval_batches.pack_cells(cells, config, *session.packing)
    report = evaluation_report(entry.name, cells, packed, config, None, tokenizer)
    prompts = sum(len(each.encoded) for each in packed if each.slots)
    work = Counter(
        scoring=_computed_tokens(count_batches(each for each in packed if not each.slots)),
        generation=prompts * config.eval.max_new_tokens,
    )
    return PlannedJob(f"jft.eval {entry.name}", [report], work), packed, report


def _computed_tokens(micro_batches: Mapping[Shape, int]) -> int:
    """Count the tokens of some micro-batches of each shape, padding included."""
    return sum(n * shape.rows * shape.row_length for shape, n in micro_batches.items())


def _measure(
    session: Session, runs: list[Batches], packed: list[PackedCells]
) -> tuple[float, dict[str, float]]:
    """Time one batch of each kind of work: that of middling size stands for all.

    Args:
      session: of the study.
      runs: its trainings.
      packed: its evaluation grid.

    Returns:
      The seconds of a job besides its work, and those of a token: a computed one for `training`
      and `scoring`, a new one for `generation`.

    Raises:
      UserError: the model cannot be loaded.
    """
    mesh, dtype, limit = session.mesh, session.dtype, session.config.eval.max_new_tokens
    with phase("Loading the model"):
        began = time.monotonic()
        decoder, params = session.model.load(mesh, dtype)
        job_seconds = START_SECONDS + time.monotonic() - began
    model = CompiledModel(decoder, params, mesh, dtype, limit)
    token_seconds = {}
    if runs:
        with phase("Measuring the speed of training"):
            token_seconds["training"] = _time_training(session, _median_run(runs))
    with phase("Measuring the speed of scoring"):
        token_seconds["scoring"] = _time_scoring(model, _median_batches(packed))
    if texts := [each for each in packed if each.slots]:
        with phase("Measuring the speed of generation"):
            token_seconds["generation"] = _time_generation(model, _median_batches(texts))
    return job_seconds, token_seconds


def _time_training(session: Session, run: Batches) -> float:
    """Time a token of one micro-batch, with its share of the update of the weights."""
    config, layout = session.config, mesh_lib.row_sharding(session.mesh, leading=1)
    batch = jax.tree.map(lambda x: jax.device_put(x[:1], layout), run.batch(0))
    optimizer = step_lib.adamw(config.optim, run.steps)
    decoder, state, frozen = start.begin(session, config, optimizer)
    program = step_lib.CompiledStep(
        decoder, config.train.remat, session.dtype, optimizer, session.mesh
    )

    def train():
        nonlocal state  # the program takes its buffers
        state, metrics = program(state, frozen, batch)
        return metrics

    return _seconds(train) / batch.tokens_BT.size


def _time_scoring(model: CompiledModel, packed: PackedCells) -> float:
    """Time a token of one batch."""
    batch, _ = next(packed.batches())
    return _seconds(lambda: model.token_logprobs(batch)) / batch.tokens_BT.size


def _time_generation(model: CompiledModel, packed: PackedCells) -> float:
    """Time a new token after the prompts of one batch, with its share of the prompts."""
    packed = replace(packed, rows=packed.rows[: packed.shape.rows])
    # No token ends a generation, so that all are as long as they may become.
    stops = Stops(np.zeros(0, np.int32), np.zeros(model.vocab_size, np.uint8))
    seconds = _seconds(lambda: list(generation.generate_tokens(model, packed, stops)))
    return seconds / (sum(map(len, packed.rows)) * model.max_new_tokens)


def _median_run(runs: list[Batches]) -> Batches:
    return sorted(runs, key=lambda run: _computed_tokens(run.micro_batches))[len(runs) // 2]


def _median_batches(packed: list[PackedCells]) -> PackedCells:
    by_size = sorted(packed, key=lambda each: _computed_tokens(count_batches([each])))
    return by_size[len(packed) // 2]


def _seconds(run: Callable[[], object]) -> float:
    """Time the second of two calls: the first compiles."""
    jax.block_until_ready(run())
    began = time.monotonic()
    jax.block_until_ready(run())
    return time.monotonic() - began


def _show(models: int, cells: int, jobs: list[dict]) -> None:
    """Print a line for each training, one for the scorings, which are alike, and the sums."""
    trainings, scorings = (
        [job for job in jobs if job["job"].startswith(program)]
        for program in ("jft.train", "jft.eval")
    )
    lines: list[tuple[str, ...]] = [("", "tokens", "with sharing", "new, at most", "time")]
    lines += [_line(record["job"], [record]) for record in trainings]
    lines.append(_line(f"jft.eval, {models} models", scorings))
    lines.append(_line("in all", jobs))
    width = max(len(line[0]) for line in lines)
    for name, *numbers in lines:
        say(f"{name:<{width}}" + "".join(f"{number:>13}" for number in numbers))
    sequence_tokens, row_tokens, _, seconds = _sums(jobs)
    say(
        f"{models} models, each scored on {cells} cells. Shared prefixes spare "
        f"{1 - row_tokens / sequence_tokens:.0%} of the tokens. About "
        f"{duration(seconds)} on this machine; generations that end early take less."
    )


def _show_power(config: config_lib.Config, run: Batches, cells: list[EncodedCell]) -> None:
    """Print how large a change has to be to be found, by relation to the first training set."""
    train = [(dataset.task.name, dataset.name) for dataset in run.datasets]
    related = relations(config, [each.cell.dataset for each in cells], train)
    trainings = len(set(config.study.seeds))
    say(
        "Changes of accuracy that it will find four times out of five, where a fifth of the "
        f"answers change, and another seed moves the mean by {100 * stats.SEED_SPREAD:g} points "
        "(before the adjustment for the number of comparisons):"
    )
    for relation in TRANSFER:
        sizes: dict[tuple[str, str], list[int]] = {}
        for cell in cells:
            key = cell.cell.dataset.task.name, cell.cell.dataset.name
            if related[key] == relation and key[0] not in RETENTION_TASKS:
                sizes.setdefault(key, []).append(len(cell.indices))
        if not sizes:
            continue
        conditions = max(map(len, sizes.values()))
        can = stats.forecast([each[0] for each in sizes.values()], conditions, trainings)
        of_recipe = (
            f"{100 * can.recipe:.1f} points of a recipe, trained {trainings} times"
            if can.recipe
            else f"none of a recipe, which takes {stats.MIN_TRAININGS} trainings (study.seeds)"
        )
        say(f"  {relation}: {100 * can.checkpoint:.1f} points of a checkpoint; {of_recipe}")


def _line(name: str, jobs: list[dict]) -> tuple[str, ...]:
    *tokens, seconds = _sums(jobs)
    return (name, *(f"{n:,}" if n else "" for n in tokens), duration(seconds))


def _sums(jobs: list[dict]) -> list:
    return [sum(job[name] for job in jobs) for name in NUMBERS]
