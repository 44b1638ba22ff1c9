"""SIGTERM and Ctrl-C in the training loop, for one process or for one of several."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jft.model import mesh as mesh_lib
from jft.runtime import processes, threads
from jft.runtime.progress import say

# The exit code of a run that could not save in time. Launchers start such a run again.
GAVE_UP = 1


class Stop:
    """Signal handler that turns SIGTERM and the first Ctrl-C into a request to end after a step.

    A Ctrl-C after either ends the program at once.

    Where one of several processes gets the signal, all have to end after the same step. So all vote
    before every step, and read the votes one step later, when they are sure to have arrived: the
    step does not wait for them.

    Args:
      mesh: the devices of all processes.
      grace: seconds after SIGTERM in which the program has to save and end; 0: no limit.
    """

    def __init__(self, mesh: Mesh, grace: float):
        self._requested, self._votes, self._grace = False, None, grace
        self._when, self._name = 0.0, ""
        self._by_device = mesh_lib.one_per_device(mesh)
        self._any = jax.jit(jnp.any, out_shardings=mesh_lib.replicated(mesh))
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def agreed(self) -> bool:
        """Check whether to end before the next step; all processes get the same answer."""
        if processes.count() == 1:
            return self._requested
        before = self._votes
        mine = np.full(self._by_device.mesh.size, self._requested)
        self._votes = self._any(mesh_lib.put(mine, self._by_device))
        requested = before is not None and bool(before)
        if requested and not self._requested:
            say("Another process was told to end: saving here")
        return requested

    def since(self) -> str:
        """Tell how long ago this process got its signal, for a message; empty if another did."""
        if not self._name:
            return ""
        return f" {time.monotonic() - self._when:.1f} s after {self._name}"

    def __enter__(self) -> Stop:
        self._reader, writer = socket.socketpair()
        writer.setblocking(False)
        self._writer = writer
        self._wakeup = signal.set_wakeup_fd(writer.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._request)
        self._watch = threads.start(self._note_signals, "the watch on signals")
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._writer.close()
        self._watch.join()  # it starts no timer after this
        if self._timer:
            self._timer.cancel()  # what the loop leaves behind is saved

    def _request(self, number: int, _) -> None:
        self._requested = True
        # The others hear of it one step later: see `agreed`.
        when = "this step" if processes.count() == 1 else "the next step"
        say(f"{signal.Signals(number).name}: saving after {when}")
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _note_signals(self) -> None:
        """Note when signals come; Python's handlers are run only after the step."""
        with self._reader:
            while number := self._reader.recv(1):
                if not self._name:
                    self._when, self._name = time.monotonic(), signal.Signals(number[0]).name
                if self._grace and number[0] == signal.SIGTERM and not self._timer:
                    self._timer = threading.Timer(self._grace, self._give_up)
                    self._timer.daemon = True
                    self._timer.start()

    def _give_up(self) -> None:
        """End without saving: the time that was left after SIGTERM is over."""
        print(
            f"error: checkpoint.grace={self._grace:g}: not saved by so many seconds after SIGTERM; "
            "a checkpoint before is whole; run the same command again to go on from there",
            file=sys.stderr,
            flush=True,
        )
        os._exit(GAVE_UP)
