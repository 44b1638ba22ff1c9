"""Background threads: work that goes on beside the program, and values that it needs later."""

from __future__ import annotations

import concurrent.futures
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# The exit code of a bug, as Python gives it; launchers start such a program again.
FAILED = 1


def ahead(work: Callable[[], T]) -> Callable[[], T]:
    """Start to compute a value that is needed later, in a thread.

    Returns:
      A function that waits for the value, and raises what `work` raised.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result


def start(work: Callable[[], None], what: str) -> threading.Thread:
    """Run `work` in a thread that does not keep the program alive.

    An exception would end the thread alone, and the program would go on without what the thread was
    to do, such as noticing that another process has ended. So it ends the program.

    Args:
      work: without arguments; may return at any time.
      what: what the thread does, for the message.
    """

    def run() -> None:
        try:
            work()
        except BaseException:
            print(
                f"error: {what} has failed, and so the program ends; run the same command again "
                f"to go on\n{traceback.format_exc()}",
                file=sys.stderr,
                flush=True,
            )
            os._exit(FAILED)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    return thread
