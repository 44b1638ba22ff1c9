"""Progress of a program: a bar on a terminal, or a line every few seconds in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class _Console(Console):
    """A console that stays silent when nobody reads it any more, as after `| head`."""

    def on_broken_pipe(self) -> None:
        """Go on: what is printed is for display, and the work is not."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = _Console(highlight=False)

# Seconds between lines where there is no terminal.
LINE_SECONDS = 5.0


def say(text: str) -> None:
    """Print one line; where it cannot be printed, as into a full disk, go on without it."""
    with contextlib.suppress(OSError):
        console.print(text, markup=False, soft_wrap=True)


def tell(text: str) -> None:
    """Print a line that is all that a program makes: that it cannot be printed is an error."""
    try:
        console.print(text, markup=False, soft_wrap=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def count(n: int, thing: str) -> str:
    """Count things in words: `1 model`, `2 models`."""
    return f"{n} {thing}{'s' * (n != 1)}"


def duration(seconds: float) -> str:
    """Write a time: `42 s`, `75 min` or `3.5 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def phase(text: str, least_seconds: float = 0.0) -> Iterator[None]:
    """Print what is being done and, at its end, how long it took.

    Args:
      text: what is being done.
      least_seconds: if above 0, print only the end, and only if it took as long: for work that is
        repeated while a bar is shown.
    """
    start, announced = time.monotonic(), not least_seconds
    status = console.status(text) if announced and console.is_terminal else None
    with status or contextlib.nullcontext():
        if announced and not status:
            say(f"{text} ...")
        yield
    seconds = time.monotonic() - start
    if seconds >= least_seconds:
        say(f"{text}: {seconds:.1f} s")


class Ticker:
    """Progress lines within a phase, at most one every `LINE_SECONDS`."""

    def __init__(self, text: str):
        """Take what is being counted: `{n}` is the number."""
        self._text, self._line = text, time.monotonic()

    def show(self, n: int) -> None:
        """Say how far the work has come, unless it was said just now."""
        now = time.monotonic()
        if now - self._line >= LINE_SECONDS:
            self._line = now
            say(self._text.format(n=f"{n:,}"))


class Bar:
    """Progress bar of a known number of steps."""

    def __init__(self, label: str, total: int, done: int = 0):
        self.label, self.total, self.done = label, total, done
        self._first, self._start, self._line = done, 0.0, 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[info]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, completed=done, info="")

    def __enter__(self) -> Bar:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        """Stop updating the bar."""
        self._bar.stop()

    def advance(self, info: str, steps: int = 1) -> None:
        """Count steps, and show a text about the newest."""
        self.done += steps
        self._bar.update(self._task, completed=self.done, info=info)
        now = time.monotonic()
        if not self._start:  # the first step is not timed: it includes compilation
            self._first, self._start = self.done, now
        last = self.done >= self.total
        if not console.is_terminal and (last or now - self._line >= LINE_SECONDS):
            self._line = now
            new = self.done - self._first
            left = (now - self._start) / new * (self.total - self.done) if new else None
            time_left = "" if left is None else f"  {left:.0f} s left"
            say(f"{self.label} {self.done}/{self.total}  {info}{time_left}")
