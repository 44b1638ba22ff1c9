"""What a study would do and take, before it does anything."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

from jft import config as config_lib
from jft.checkpoints.session import open_session
from jft.data import checks
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import say
from jft.studies import costs, measure
from jft.studies.costs import Scoring, Training
from jft.studies.measure import Speeds
from jft.studies.parts import Part, parts


class Estimate(NamedTuple):
    """A job of the study.

    Attributes:
      job: as in `jobs.jsonl`.
      sequence_tokens: of all its sequences, as rows without sharing hold them.
      row_tokens: in packed rows, padding left out.
      new_tokens: that it generates at most.
      seconds: on this machine.
    """

    job: str
    sequence_tokens: int
    row_tokens: int
    new_tokens: int
    seconds: float


def dry_run(config: config_lib.Config, workdir: str) -> None:
    """Print a study's jobs with their tokens and times, and leave them in `dry_run.json`.

    Raises:
      UserError: the config is not fit for it.
    """
    with workdir_lib.claim(workdir, config, "jft.study") as claimed:
        folder = claimed.resolve()
        found = parts(config, folder)
        session = open_session(config)
        seen, shards = session.model.trained_on, session.row_shards
        trainings, scoring = costs.plan(found, session.tokenizer, seen, shards)
        speeds = measure.speeds(config, session, trainings, scoring.cells)
        estimates = _estimates(config, found, trainings, scoring, speeds)
        findings = _findings(trainings, scoring)
        _write(folder / "dry_run.json", found, scoring, estimates, speeds, findings)
        checks.say_warnings(findings, "dry_run.json")
        _show(found, scoring, estimates)


def _estimates(
    config: config_lib.Config,
    found: list[Part],
    trainings: list[Training],
    scoring: Scoring,
    speeds: Speeds,
) -> list[Estimate]:
    """The jobs in the order of the study; the first of a shape has to compile it."""
    shapes: set[Hashable] = set()
    by_name = {training.name: training for training in trainings}
    estimates = []  # none for a training that would fail
    for part in found:
        if part.training and part.name not in by_name:
            continue
        if part.training:
            estimates.append(_training(config, by_name[part.name], speeds, shapes))
        estimates.append(_scoring(config, part.name, scoring, speeds, shapes))
    return estimates


def _training(
    config: config_lib.Config, training: Training, speeds: Speeds, shapes: set[Hashable]
) -> Estimate:
    seconds = speeds.start + training.seconds + speeds.load
    seconds += training.flops(speeds.decoder) * speeds.training
    seconds += training.probe_flops(speeds.decoder, config.probe.every) * speeds.scoring
    seconds += speeds.load  # of the base again, to measure the drift of the weights
    for shape in training.batches.micro_batches:
        seconds += speeds.compile_training if _first(("training", shape), shapes) else 0
    if _first(("probe", training.probe), shapes):
        seconds += speeds.compile_scoring
    return _estimate(f"jft.train {training.name}", [training.report], 0, seconds)


def _scoring(
    config: config_lib.Config,
    name: str,
    scoring: Scoring,
    speeds: Speeds,
    shapes: set[Hashable],
) -> Estimate:
    seconds, longest = speeds.start + scoring.seconds + speeds.load, config.eval.max_new_tokens
    for cell in scoring.cells:
        seconds += costs.forward_flops(cell, speeds.decoder) * speeds.scoring
        new = _first((costs.generates(cell), cell.shape), shapes)
        if costs.generates(cell):
            work = costs.decoding_flops(cell, speeds.decoder, len(cell.encoded), longest)
            seconds += work * speeds.generation
            seconds += speeds.compile_generation if new else 0
        else:
            seconds += speeds.compile_scoring if new else 0
    new_tokens = scoring.prompts * longest
    return _estimate(f"jft.eval {name}", scoring.report["cells"], new_tokens, seconds)


def _estimate(job: str, packed: list[dict], new_tokens: int, seconds: float) -> Estimate:
    """The estimate of a job, whose data reports count the tokens of what is packed."""
    return Estimate(
        job=job,
        sequence_tokens=sum(each["sequence_tokens"] for each in packed),
        row_tokens=sum(each["row_tokens"] for each in packed),
        new_tokens=new_tokens,
        seconds=seconds,
    )


def _findings(trainings: list[Training], scoring: Scoring) -> list[dict]:
    """What the checks say of all data, each thing once."""
    reports = [*(training.report for training in trainings), scoring.report]
    every = [finding for report in reports for finding in report["findings"]]
    return list({(finding["where"], finding["text"]): finding for finding in every}.values())


def _first(shape: Hashable, shapes: set[Hashable]) -> bool:
    """Whether this is the first job of a shape."""
    new = shape not in shapes
    shapes.add(shape)
    return new


def _write(
    file: Path,
    found: list[Part],
    scoring: Scoring,
    estimates: list[Estimate],
    speeds: Speeds,
    findings: list[dict],
) -> None:
    per_flop = {name: getattr(speeds, name) for name in ("training", "scoring", "generation")}
    content = {
        "models": len(found),
        "cells_per_model": len(scoring.cells),
        "jobs": [estimate._asdict() for estimate in estimates],
        "seconds": sum(estimate.seconds for estimate in estimates),
        "findings": findings,
        "gflops": {name: 1e-9 / value for name, value in per_flop.items() if value},
    }
    workdir_lib.write_json(file, content)


def _show(found: list[Part], scoring: Scoring, estimates: list[Estimate]) -> None:
    """A line for each training, one for the scorings, which are alike, and the sums."""
    lines: list[tuple[str, ...]] = [("", "tokens", "in rows", "new, at most", "time")]
    lines += [_line(each.job, each) for each in estimates if each.job.startswith("jft.train")]
    scorings = [each for each in estimates if each.job.startswith("jft.eval")]
    lines.append(_line(f"jft.eval, {len(found)} models", _sum(scorings)))
    everything = _sum(estimates)
    lines.append(_line("in all", everything))
    width = max(len(line[0]) for line in lines)
    for name, *numbers in lines:
        say(f"{name:<{width}}" + "".join(f"{number:>13}" for number in numbers))
    say(
        f"{len(found)} models, each scored on {len(scoring.cells)} cells. Shared prefixes spare "
        f"{1 - everything.row_tokens / everything.sequence_tokens:.0%} of the tokens. About "
        f"{_duration(everything.seconds)} on this machine; generations that end early take less."
    )


def _line(name: str, estimate: Estimate) -> tuple[str, ...]:
    numbers = (estimate.sequence_tokens, estimate.row_tokens, estimate.new_tokens)
    return (name, *(f"{n:,}" if n else "" for n in numbers), _duration(estimate.seconds))


def _sum(estimates: list[Estimate]) -> Estimate:
    return Estimate(
        job="",
        sequence_tokens=sum(each.sequence_tokens for each in estimates),
        row_tokens=sum(each.row_tokens for each in estimates),
        new_tokens=sum(each.new_tokens for each in estimates),
        seconds=sum(each.seconds for each in estimates),
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
