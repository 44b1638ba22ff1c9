"""One side of a comparison: a process that prepares itself, then does rounds of work when asked."""

from __future__ import annotations

import json
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def serve(prepare: Callable[[dict], Callable[[], list]]) -> None:
    """Answer on the standard output: a line of JSON for the start and for every line of input.

    Args:
      prepare: function that takes the program's first argument, a JSON object, and returns a
        function that does one round of work and returns its results: losses, log-probabilities or
        texts.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # all else that is printed goes to the standard error
    rounds: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(rounds,), daemon=True).start()
    began = time.monotonic()
    do_round = prepare(json.loads(sys.argv[1]))
    _answer(answers, began, [])
    while True:
        rounds.get()
        began = time.monotonic()
        _answer(answers, began, do_round())


def _listen(rounds: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        rounds.put(line)
    os._exit(0)  # the parent process has ended


def _answer(answers: Any, began: float, results: list) -> None:
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "results": results}), file=answers)
