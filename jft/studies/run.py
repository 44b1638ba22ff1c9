"""Runs a study: its jobs one after the other, each as a process of its own.

A process of its own costs some seconds, and keeps what goes wrong in one job, or fills up the
memory, from the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jft import config as config_lib
from jft.errors import UserError
from jft.runtime import workdir as workdir_lib
from jft.runtime.cli import EXITS_WITH_PARENT
from jft.runtime.progress import say
from jft.studies import inputs
from jft.studies.parts import Job, Part, parts

# One record of `jobs.jsonl`: how a job ended.
RECORD = {"job": str, "sha256": str, "status": str, "seconds": int | float, "message": str}
DONE, FAILED = "done", "failed"


def run(config: config_lib.Config, workdir: str) -> None:
    """Run what is not done yet, and write the report.

    Raises:
      UserError: the config is not fit for it, or jobs failed; the others were run.
    """
    with workdir_lib.claim(workdir, config, "jft.study") as claimed, _Processes() as processes:
        folder = claimed.resolve()
        found = parts(config, folder)
        log = _Log(folder / "jobs.jsonl", sum(1 + (part.training is not None) for part in found))
        for part in found:
            _run_part(part, config, processes, log)
        scored = [part.scoring.folder for part in found]
        scored = [each for each in scored if (each / "cells.jsonl").exists()]
        if scored:
            _report(folder, scored, processes)
        if log.failed:
            raise UserError(
                f"failed jobs: {len(log.failed)}; the others are done: "
                + "; ".join(f"{name}: {message}" for name, message in log.failed.items())
                + ". The same command tries them again"
            )
        say(f"Done: {len(found)} models in {folder}")


def _run_part(part: Part, study: config_lib.Config, processes: _Processes, log: _Log) -> None:
    """Train and score one model; without the first there is nothing to do for the second."""
    jobs = [job for job in (part.training, part.scoring) if job]
    for job in jobs:
        name = f"{job.program} {part.name}"
        digest = _digest(job, study)
        if log.is_done(name, digest) and _is_whole(job):
            log.count += 1
            continue
        log.begin(name)
        start = time.monotonic()
        message = processes.run(_command(job))
        if not message and not _is_whole(job):
            message = "it was stopped before its last step"
        log.end(name, digest, time.monotonic() - start, message)
        if message:
            return


def _is_whole(job: Job) -> bool:
    """Whether a job's results are still there."""
    if job.program == "jft.train":
        return workdir_lib.is_trained(job.folder)
    return all((job.folder / name).exists() for name in workdir_lib.RESULTS[job.program])


def _command(job: Job) -> list[str]:
    """The job as a command; its config lies beside the study's."""
    file = job.folder.parents[1] / "configs" / f"{job.program}-{job.folder.name}.json"
    file.parent.mkdir(exist_ok=True)
    workdir_lib.write_json(file, config_lib.to_dict(job.config))
    workdir_lib.wait(job.folder)
    return [job.program, f"--config={file}", f"--workdir={job.folder}"]


def _report(folder: Path, scored: list[Path], processes: _Processes) -> None:
    """Of the models that the grid has now: it may have had others."""
    message = processes.run(["jft.report", *map(str, scored), f"--out={folder / 'report'}"])
    if message:
        raise UserError(f"the report failed: {message}")


def _digest(job: Job, study: config_lib.Config) -> str:
    """Of all that a job depends on: where it has changed, the job says what that means."""
    model = inputs.of_model(job.config.model.path)
    return workdir_lib.sha256([config_lib.to_dict(job.config), model, inputs.of_data(study)])


class _Log:
    """jobs.jsonl: how every job ended, the last time."""

    def __init__(self, file: Path, total: int):
        self.file, self.total, self.count = file, total, 0
        self.records = {each["job"]: each for each in workdir_lib.keep_jsonl(file, RECORD)}
        self.failed: dict[str, str] = {}

    def is_done(self, name: str, digest: str) -> bool:
        """Whether a job ended well, with the same config."""
        last = self.records.get(name, {})
        return (last.get("status"), last.get("sha256")) == (DONE, digest)

    def begin(self, name: str) -> None:
        self.count += 1
        say(f"\n== {self.count}/{self.total}  {name}")

    def end(self, name: str, digest: str, seconds: float, message: str) -> None:
        """Record how it ended; no message means well."""
        if message:
            self.failed[name] = message
            say(f"failed: {name}: {message}")
        record = {
            "job": name,
            "sha256": digest,
            "status": FAILED if message else DONE,
            "seconds": round(seconds, 1),
            "message": message,
        }
        workdir_lib.append_jsonl(self.file, [record])


class _Processes:
    """Runs one program at a time, and hands the signals of the study on to it."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Processes:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: list[str]) -> str:
        """Run `python -m` with a command; what went wrong, or nothing."""
        # Its standard input ends with this process, however this one ends, and it then ends, too. A
        # session of its own keeps Ctrl-C away from it, which is handed on once.
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=os.environ | {EXITS_WITH_PARENT: "1"},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        last = ""
        assert self._process.stderr
        for line in self._process.stderr:
            sys.stderr.write(line)
            last = line.strip() or last
        code = self._process.wait()
        if not code:
            return ""
        if code < 0:
            return f"killed by {signal.Signals(-code).name}; was there enough memory?"
        return last.removeprefix("error: ") or f"ended with exit code {code}"

    def _stop(self, number: int, frame) -> None:
        """Let the program save what it has; a second signal does not wait for it."""
        for again in self._before:
            signal.signal(again, self._before[again])
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        signal.raise_signal(number)
