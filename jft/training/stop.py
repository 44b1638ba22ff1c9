"""Being told to end: SIGTERM and Ctrl-C, for one process or one of several."""

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
from jft.runtime import processes
from jft.runtime.progress import say

# The exit code of a run that could not save in time: as one that was lost, it is started again.
GAVE_UP = 1


class Stop:
    """Turns SIGTERM and the first Ctrl-C into a wish to end after the step under way.

    Where one of several processes is asked, all have to end after the same step: they vote before
    each, and read the votes before the next, when all have given them long since.

    Args:
      mesh: the devices of all processes.
      grace: seconds after SIGTERM by which the program has to be over, or gives up; 0: no limit.
    """

    def __init__(self, mesh: Mesh, grace: float):
        self.asked, self._votes, self._grace = False, None, grace
        self._when, self._name = 0.0, ""
        self._everyone = mesh_lib.one_per_device(mesh)
        self._any = jax.jit(jnp.any, out_shardings=mesh_lib.replicated(mesh))
        self._before: dict[int, Any] = {}

    def agreed(self) -> bool:
        """Whether to end before the next step; all processes get the same answer."""
        if processes.count() == 1:
            return self.asked
        before = self._votes
        mine = np.full(self._everyone.mesh.size, self.asked)
        self._votes = self._any(mesh_lib.put(mine, self._everyone))
        asked = before is not None and bool(before)
        if asked and not self.asked:
            say("Another process was told to end: saving here")
        return asked

    def since(self) -> str:
        """How long ago this process was asked, for a message; empty where another was."""
        if not self._name:
            return ""
        return f" {time.monotonic() - self._when:.1f} s after {self._name}"

    def __enter__(self) -> Stop:
        self._hears, told = socket.socketpair()
        told.setblocking(False)
        self._told = told
        self._wakeup = signal.set_wakeup_fd(told.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._ask)
        threading.Thread(target=self._hear, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._told.close()

    def _ask(self, number: int, _) -> None:
        self.asked = True
        say(f"{signal.Signals(number).name}: saving after this step")
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _hear(self) -> None:
        """Note signals when they come: Python tells a program when its step is over."""
        with self._hears:
            while number := self._hears.recv(1):
                if not self._name:
                    self._when, self._name = time.monotonic(), signal.Signals(number[0]).name
                if self._grace and number[0] == signal.SIGTERM:
                    timer = threading.Timer(self._grace, self._give_up)
                    timer.daemon = True
                    timer.start()

    def _give_up(self) -> None:
        print(
            f"error: checkpoint.grace={self._grace:g}: not saved by so many seconds after SIGTERM; "
            "a checkpoint before is whole; run the same command again to go on from there",
            file=sys.stderr,
            flush=True,
        )
        os._exit(GAVE_UP)
