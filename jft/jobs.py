"""Do the jobs of a study one after the other; `jft.study` starts this program and talks to it.

    python -m jft.jobs ANSWERS

A line of the standard input is a job, as JSON: the program's name and its arguments. A line to the
file descriptor ANSWERS is how it ended: "", or what is wrong with its config or data. Any other
error ends the process. Libraries are imported, and programs compiled, once for all jobs.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from jft import eval as eval_program
from jft import report, train
from jft.errors import UserError
from jft.runtime import cli, workdir


def main() -> None:
    """Do jobs until the standard input ends, as it does when the study does."""
    jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(jobs, busy), daemon=True).start()
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as answers:
        while line := jobs.get():
            busy.set()
            try:
                answer = _do(*json.loads(line))
            finally:
                busy.clear()
            gc.collect()  # its arrays
            print(json.dumps(answer), file=answers)


def _do(program: str, *arguments) -> str:
    """Do a job, and return what is wrong with its config or data."""
    try:
        if program == "jft.report":
            report.main(*arguments)
        else:
            file, folder = arguments
            run = {"jft.train": train.main, "jft.eval": eval_program.main}[program]
            run(workdir.read_config(Path(file)), folder, False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return str(error)
    return ""


def _listen(jobs: queue.SimpleQueue, busy: threading.Event) -> None:
    """Pass jobs on; where input ends during one, tell this process to end, as SIGTERM would.

    A study may be killed at any moment; its jobs must not go on without it.
    """
    for line in sys.stdin:
        jobs.put(line)
    jobs.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    cli.guard(main)
