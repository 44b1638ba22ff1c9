"""The dry run of a study: its jobs, their tokens exactly, and about how long they will take."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from jft import config as config_lib
from jft.checkpoints.session import Session, open_session
from jft.data import checks, data_report, datasets, eval_batches, probe_batches, train_batches
from jft.data.eval_batches import PackedCell
from jft.data.eval_grid import all_cells
from jft.data.packed import count_batches
from jft.data.prompts import Encoder
from jft.data.train_batches import Batches
from jft.errors import UserError
from jft.runtime import records
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import Bar, say
from jft.studies import speed
from jft.studies.entries import Entry, Job, entries

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
        jobs, runs, cells, findings = _plan(study, session)
        job_seconds, token_seconds = speed.measure(session, runs, cells)
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
) -> tuple[list[PlannedJob], list[Batches], list[PackedCell], list[dict]]:
    """Plan all jobs, in the order in which they run; a training that would fail is named.

    Returns:
      The other jobs, the batches of each training, the cells that every model is scored on, and
      what the checks of all data found, each thing once.
    """
    tokenizer, seen, shards = session.tokenizer, session.model.trained_on, session.row_shards
    jobs: list[PlannedJob] = []
    runs: list[Batches] = []
    findings: list[dict] = []
    with Bar("Planning", len(study)) as bar:
        scoring, cells, report = _plan_scoring(study[0], tokenizer, shards)
        bar.advance("scoring")
        for entry in study:
            if entry.training:
                try:
                    job, run = _plan_training(entry, entry.training, tokenizer, seen, shards)
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
    return jobs, runs, cells, list(once.values())


def _plan_training(
    entry: Entry, job: Job, tokenizer: Encoder, seen: frozenset[str] | None, shards: int
) -> tuple[PlannedJob, Batches]:
    """Plan a training with its probes; returns its batches, too."""
    config = job.config
    run = train_batches.plan_run(config, tokenizer, shards)
    probes = probe_batches.plan_probes(config, tokenizer, run.dataset, seen, shards)
    report = data_report.training_report(run, datasets.suite(config.data), config.data)
    work = Counter(training=speed.computed_tokens(run.micro_batches))
    if probes:
        probed_steps = {*range(0, run.steps, config.probe.every or run.steps), run.steps}
        work["scoring"] = len(probed_steps) * speed.computed_tokens(count_batches([probes]))
    return PlannedJob(f"jft.train {entry.name}", [report], work), run


def _plan_scoring(
    entry: Entry, tokenizer: Encoder, shards: int
) -> tuple[PlannedJob, list[PackedCell], dict]:
    """Plan the evaluation of a model, with its cells and its data report."""
    config = entry.scoring.config
    cells = [eval_batches.pack_cell(cell, tokenizer, config, shards) for cell in all_cells(config)]
    report = data_report.evaluation_report(entry.name, cells, config, None)
    prompts = sum(len(cell.encoded) for cell in cells if cell.slots)
    work = Counter(
        scoring=speed.computed_tokens(count_batches(cell for cell in cells if not cell.slots)),
        generation=prompts * config.eval.max_new_tokens,
    )
    return PlannedJob(f"jft.eval {entry.name}", report["cells"], work), cells, report


def _show(models: int, cells: int, jobs: list[dict]) -> None:
    """Print a line for each training, one for the scorings, which are alike, and the sums."""
    trainings, scorings = (
        [job for job in jobs if job["job"].startswith(program)]
        for program in ("jft.train", "jft.eval")
    )
    lines: list[tuple[str, ...]] = [("", "tokens", "in rows", "new, at most", "time")]
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
        f"{_duration(seconds)} on this machine; generations that end early take less."
    )


def _line(name: str, jobs: list[dict]) -> tuple[str, ...]:
    *tokens, seconds = _sums(jobs)
    return (name, *(f"{n:,}" if n else "" for n in tokens), _duration(seconds))


def _sums(jobs: list[dict]) -> list:
    return [sum(job[name] for job in jobs) for name in NUMBERS]


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
