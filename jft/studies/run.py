"""Running a study: its jobs one after the other, in a process beside this one.

All jobs share that process as long as it lives. A job that fills up the memory, or ends it with an
error that nobody foresaw, leaves the others alone: the next one has a new process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jft import config as config_lib
from jft.checkpoints import model_ref
from jft.data.rows import datasets
from jft.data.rows.dataset_ref import DatasetRef
from jft.errors import UserError, expand, naming
from jft.runtime import records
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import say
from jft.studies.entries import Entry, Job, entries

DONE, FAILED = "done", "failed"


def run_study(config: config_lib.Config, workdir: str) -> None:
    """Run the jobs that are not done yet, and write the report.

    Raises:
      UserError: the config is unfit for a study, or jobs failed; the others were run.
    """
    with workdir_lib.claim(workdir, config, "jft.study") as claimed, _Worker() as worker:
        folder = claimed.resolve()
        study = entries(config, folder)
        number = sum(1 + (entry.training is not None) for entry in study)
        log = _Log(folder, number)
        for entry in study:
            _run_entry(entry, config, worker, log)
        scored = [entry.scoring.folder for entry in study]
        scored = [each for each in scored if (each / "cells.jsonl").exists()]
        if scored:
            _report(folder, scored, config.report.margin, worker)
        if log.failed:
            raise UserError(
                f"failed jobs: {len(log.failed)}; the others are done: "
                + "; ".join(f"{name}: {message}" for name, message in log.failed.items())
                + ". The same command tries them again"
            )
        say(f"Done: {len(study)} models in {folder}")


def _run_entry(entry: Entry, config: config_lib.Config, worker: _Worker, log: _Log) -> None:
    """Train and score one model; where training fails, scoring is left out."""
    jobs = [job for job in (entry.training, entry.scoring) if job]
    for job in jobs:
        name = f"{job.program} {entry.name}"
        digest = _digest(job, config)
        if log.is_done(name, digest) and _has_results(job):
            log.count += 1
            continue
        log.begin(name)
        start = time.monotonic()
        message = worker.run(_command(job))
        if not message and not _has_results(job):
            message = "it was stopped before its last step"
        log.end(name, digest, time.monotonic() - start, message)
        if message:
            return


def _has_results(job: Job) -> bool:
    """Check whether all results of a job are in its workdir."""
    if job.program == "jft.train":
        return workdir_lib.is_trained(job.folder)
    return all((job.folder / name).exists() for name in workdir_lib.RESULTS[job.program])


def _command(job: Job) -> list[str]:
    """Write the config of a job to the study's `configs/`, and return the job for `jft.jobs`."""
    file = job.folder.parents[1] / "configs" / f"{job.program}-{job.folder.name}.json"
    file.parent.mkdir(exist_ok=True)
    workdir_lib.write_config(file, job.config)
    workdir_lib.wait_until_free(job.folder)
    return [job.program, str(file), str(job.folder)]


def _report(folder: Path, scored: list[Path], margin: float, worker: _Worker) -> None:
    """Write the report on the models that the grid has now; it may have had others."""
    arguments = [[str(each) for each in scored], str(folder / "report"), margin, ""]
    message = worker.run(["jft.report", *arguments])
    if message:
        raise UserError(f"the report failed: {message}")


def _digest(job: Job, study: config_lib.Config) -> str:
    """Hash all that a job depends on; where that has changed, the job is started again.

    What the change means, the job itself says.
    """
    model = _model_sha256(job.config.model.path)
    return workdir_lib.sha256([config_lib.to_dict(job.config), model, _data_sha256(study)])


def _model_sha256(path: str) -> str:
    """Hash the model that `model.path` means, and the bases of adapters down to one with none."""
    try:
        ref = model_ref.resolve(path)
        sha256 = [ref.fingerprint()]
        while ref.has_adapters:
            ref = ref.base
            sha256.append(ref.fingerprint())
        return workdir_lib.sha256(sha256)
    except UserError:
        return ""  # the job will say what is wrong with it


def _data_sha256(config: config_lib.Config) -> str:
    """Hash the suite's files, and the user's own files that a study names.

    What a change in them means, the job itself knows.
    """
    suite, data = datasets.suite(config.data), config.data
    files = {suite.root / "prompt_map.json"}
    for task in suite.tasks:
        files.update((suite.root / task).rglob("*.json"))
    grid = [*config.study.train, *config.eval.datasets, *config.probe.datasets]
    grid += config.eval.retention
    template = data.chat_template
    files.update([expand(template)] if template else [])
    for name in [*data.demos, *data.valid, *grid]:
        for reference in (name, name.partition(":")[2]):  # with a task before it, or without
            files.update(DatasetRef.parse(reference).files())
    return _files_sha256(files)


def _files_sha256(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            with naming(path):
                found = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path} {found}\n".encode())
    return digest.hexdigest()


class _Log:
    """The file `jobs.jsonl`, by which a study knows how every job ended the last time."""

    def __init__(self, folder: Path, total: int):
        self.folder, self.total, self.count = folder, total, 0
        self.records = {each["job"]: each for each in records.keep_lines(folder, records.JOBS)}
        self.failed: dict[str, str] = {}

    def is_done(self, name: str, digest: str) -> bool:
        """Check whether a job ended well, on the same inputs."""
        last = self.records.get(name, {})
        return (last.get("status"), last.get("sha256")) == (DONE, digest)

    def begin(self, name: str) -> None:
        """Say which job begins."""
        self.count += 1
        say(f"\n== {self.count}/{self.total}  {name}")

    def end(self, name: str, digest: str, seconds: float, message: str) -> None:
        """Record how a job ended; an empty message means that it ended well."""
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
        records.append(self.folder, records.JOBS, [record])


class _Worker:
    """The process that does the jobs, one at a time; where one ends it, the next has a new one."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._answers: Any = None
        self._last = ""  # line of its standard error
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Worker:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_) -> None:
        if self._process:
            self._end()
            self._answers.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, job: list) -> str:
        """Have a job done, and return what went wrong, or an empty string."""
        if self._process is None:
            self._start()
        assert self._process
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended, and gives no answer
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        answer = self._answers.readline()
        if answer:
            return json.loads(answer)
        code = self._end()
        self._answers.close()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}; was there enough memory?"
        return self._last.removeprefix("error: ") or f"ended with exit code {code}"

    def _start(self) -> None:
        # The process ends when its standard input does, so with this process, however this one
        # ends. In a session of its own it does not get Ctrl-C from the terminal as well as from
        # `_stop`.
        reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jft.jobs", str(writer)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=[writer],
            start_new_session=True,
        )
        os.close(writer)
        self._answers, self._last = os.fdopen(reader), ""
        self._copier = threading.Thread(target=self._copy_errors, daemon=True)
        self._copier.start()

    def _copy_errors(self) -> None:
        assert self._process
        assert self._process.stderr
        for line in self._process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            self._last = line.strip() or self._last

    def _end(self) -> int:
        """Let the process end, which saves what it has, and return its exit code."""
        assert self._process
        assert self._process.stdin
        assert self._process.stderr
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        code = self._process.wait()
        self._copier.join()
        self._process.stderr.close()
        self._process = None
        return code

    def _stop(self, number: int, frame) -> None:
        """End the jobs, then this process; a second signal ends this process at once."""
        for again in self._before:
            signal.signal(again, self._before[again])
        if self._process:
            self._end()
        signal.raise_signal(number)
