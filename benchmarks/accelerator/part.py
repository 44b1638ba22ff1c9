"""A part of the measurement: a process that yields rows of a table, each as soon as it is known."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jft.runtime import libtpu

Row = dict[str, Any]


class Spec(NamedTuple):
    """The size of a measurement.

    Attributes:
      tiny: sizes that a CPU computes in seconds, to try the code.
      model: model of the whole programs, as `model.path` takes it.
      data: folder of their data, as `data.root` takes it.
      peer: the Python that has torch; empty: there is none.
    """

    tiny: bool
    model: str
    data: str
    peer: str


def serve(*tables: Callable[[Spec], Iterator[Row]]) -> None:
    """Print the rows of tables as lines of JSON; all else that is printed goes to the errors.

    Args:
      tables: functions that take the program's first argument, a `Spec` as JSON. Where there is a
        second one, it is the name of the only function that is called.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    libtpu.prepare()
    for rows in tables:
        if rows.__name__ in sys.argv[2:] or not sys.argv[2:]:
            for row in rows(Spec(**json.loads(sys.argv[1]))):
                print(json.dumps(row), file=answers)


def attempt(row: Row, measure: Callable[[], Row]) -> Row:
    """Add what is measured to a row or, where that fails, the reason."""
    try:
        return row | measure()
    except Exception as error:  # whatever it is, the next row is to be measured
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return row | {"failed": reason[:200]}


def seconds_of(function: Callable[[], Any], wait: Callable[[Any], Any], rounds: int) -> float:
    """Time a function in the best of three series of calls that are waited for together.

    Args:
      function: what is timed; called once before.
      wait: waits for what it returns.
      rounds: calls of a series.
    """
    wait(function())
    series = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(rounds):
            last = function()
        wait(last)
        series.append((time.perf_counter() - began) / rounds)
    return min(series)
