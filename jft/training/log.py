"""The log of a run's steps and probes: JSON lines, TensorBoard and the progress bar."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from jft import config as config_lib
from jft.data import prefix_tree
from jft.data.train_batches import Batches
from jft.errors import UserError
from jft.runtime import processes, records
from jft.runtime.progress import Bar, say
from jft.tasks import VALIDATION
from jft.training import step as step_lib
from jft.training.step import Metrics

# Seconds after which what TensorBoard is to show is written out.
BOARD_SECONDS = 5.0


class Board:
    """The writer of a run's TensorBoard files, which are for display alone.

    The first write that fails is said, and is the last: training goes on. tensorboardX's own writer
    has a thread and a queue; when a write fails its thread ends, and the queue blocks when full.

    Args:
      folder: the workdir.
      done: steps that are trained already; what earlier files say of later ones is not shown.
    """

    def __init__(self, folder: Path, done: int):
        self._folder = folder / "tensorboard"
        self._writer: RecordWriter | None = None
        with self._guarded():
            self._folder.mkdir(exist_ok=True)
            # TensorBoard reads the files in the order of their names.
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
            self._writer = RecordWriter(str(self._folder / name))
            self._write(Event(file_version="brain.Event:2"))
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=done + 1 if done else 0, session_log=start))

    def add(self, tag: str, value: float, step: int) -> None:
        """Show a value of a step."""
        self._write(Event(step=step, summary=scalar(tag, value)))

    def flush(self) -> None:
        """Put all values on disk."""
        with self._guarded():
            if self._writer:
                self._writer.flush()

    def close(self) -> None:
        """Put all values on disk, and close the file."""
        with self._guarded():
            if self._writer:
                self._writer.close()
        self._writer = None

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with self._guarded():
            if self._writer:
                self._writer.write(event.SerializeToString())

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            broken, self._writer = self._writer, None
            with contextlib.suppress(OSError):
                if broken:
                    broken.close()
            say(
                f"note: {self._folder}: {error.strerror or error}; nothing more is written there, "
                f"and training goes on: {records.METRICS.name} has the same numbers"
            )


class Log:
    """The writer of metrics.jsonl and probes.jsonl, TensorBoard files and the progress bar.

    jft reads the two files again; the rest is for display. Records of steps after `done` are
    dropped from them, since these steps are trained and logged again.

    Args:
      folder: the workdir.
      config: the run's config.
      batches: the run's batches.
      done: steps that the newest checkpoint has trained; 0 without one.
    """

    def __init__(self, folder: Path, config: config_lib.Config, batches: Batches, done: int):
        self.folder = folder
        kept = records.keep_lines(folder, records.METRICS, lambda r: r["step"] <= done)
        if len(kept) != done:
            file = folder / records.METRICS.name
            say(f"note: {file} has {len(kept)} of the {done} steps until here")
        # Without a checkpoint the probe before the first step is made again, too.
        records.keep_lines(folder, records.PROBES, lambda r: done > 0 and r["step"] <= done)
        self.board = Board(folder, done) if processes.first() else None
        # For all steps at once: asked for in turn, a device would answer after the step under way.
        schedule = step_lib.learning_rate(config.optim, batches.steps)
        self.batches = batches
        self.lr = np.asarray(jax.jit(jax.vmap(schedule))(np.arange(batches.steps, dtype=np.int32)))
        self.bar = Bar("Training", batches.steps, done)
        self.time = self._flushed = time.monotonic()
        self._pending: tuple[int, Metrics] | None = None

    def __enter__(self) -> Log:
        """Show the bar."""
        self.bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop showing the bar, and close TensorBoard's file."""
        self.bar.__exit__(*error)
        if self.board:
            self.board.close()

    def step(self, step: int, metrics: Metrics) -> None:
        """Record the step before this one, while the devices work on this one.

        Raises:
          UserError: the loss of the step before is not a number.
        """
        self._record()
        self._pending = step, metrics

    def flush(self) -> None:
        """Wait for the newest step, and put all that is known on disk.

        Raises:
          UserError: the loss is not a number; training on would only lose more.
        """
        self._record()
        records.sync(self.folder, records.METRICS)
        if self.board:
            self.board.flush()

    def _record(self) -> None:
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        loss, grad_norm = map(float, jax.device_get(metrics))
        _check_finite(step, loss, grad_norm)
        counts = prefix_tree.count(self.batches.packed[step - 1].sequences)
        now = time.monotonic()
        seconds, self.time = now - self.time, now
        if self.board and now - self._flushed > BOARD_SECONDS:
            self._flushed = now
            self.board.flush()
        of_sets = self.batches.examples_by_set(step - 1)
        record: dict[str, Any] = {
            "step": step,
            "loss": loss,
            "examples": self.batches.batch_size,
            **({"sets": of_sets} if len(of_sets) > 1 else {}),
            "target_tokens": counts.target_tokens,
            "row_tokens": counts.row_tokens,
            "seconds": round(seconds, 4),
            "lr": float(self.lr[step - 1]),
            "grad_norm": grad_norm,
        }
        # What a checkpoint does not hold yet is trained again: only `flush` waits for the disk.
        records.append(self.folder, records.METRICS, [record], wait=False)
        for name in ("loss", "lr", "grad_norm", "seconds"):
            self._show(f"train/{name}", record[name], step)
        self.bar.advance(f"loss {loss:.4f}  {counts.row_tokens / seconds:.0f} tokens/s")

    def probe(self, probes: list[dict]) -> None:
        """Record a probe, and start measuring the seconds of the next step."""
        records.append(self.folder, records.PROBES, probes)
        for record in probes:
            for name in ("loss", "nll", "accuracy", "kl"):
                if record[name] is not None:
                    valid = record["relation"] == VALIDATION
                    tag = f"{'valid' if valid else 'probe'}/{record['dataset']}/{name}"
                    self._show(tag, record[name], record["step"])
        self.restart()

    def restart(self) -> None:
        """Start measuring the seconds of the next step now."""
        self.time = time.monotonic()

    def _show(self, tag: str, value: float, step: int) -> None:
        if self.board:
            self.board.add(tag, value, step)


def _check_finite(step: int, loss: float, grad_norm: float) -> None:
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    remedy = (
        "lower optim.lr, or set optim.clip"
        if step > 1
        else "nothing is trained yet, so the model is damaged, or too large for model.dtype"
    )
    raise UserError(f"the loss is {loss} and its gradient {grad_norm} at step {step}; {remedy}")
