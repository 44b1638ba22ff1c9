"""The roll of a run's processes: who has come, and who has gone.

JAX connects them, but where one never comes, or goes, it aborts without saying which. So they call
the roll first: process 0 waits at the coordinator's address, and the connections stay open to the
end, since a process that dies closes its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import sys
import threading
import time
import typing
from collections.abc import Iterator
from typing import NamedTuple

from jft import progress
from jft.errors import UserError

# Who has lost another process ends with this, so that a launcher can tell it from a wrong config.
LOST = 1
# Seconds between attempts to reach process 0, for a greeting, and until one that goes is noticed.
RETRY, GREETING, NOTICE = 0.2, 10.0, 2.0
# Bytes of what a process says to another.
LONGEST = 4096


class Place(NamedTuple):
    """Where this process stands.

    Attributes:
      coordinator: host:port at which process 0 is met.
      number: how many processes there are.
      process: which one this is, from 0.
      local_device_ids: the GPUs that are this process's alone; None: all that it sees.
      meeting: what all processes of this run know, and those of no other; empty for one alone.
    """

    coordinator: str
    number: int
    process: int
    local_device_ids: list[int] | None = None
    meeting: str = ""

    @property
    def first(self) -> bool:
        """Whether this is process 0."""
        return not self.process

    def name(self, index: int | None = None) -> str:
        """A process, or this one, as messages call it."""
        return f"process {self.process if index is None else index} of {self.number}"


class Roll:
    """The roll of a run: calls it, then watches that nobody goes.

    Attributes:
      coordinator: host:port where JAX's own service is to be.
    """

    def __init__(self, place: Place, wait: float):
        self._place, self._wait, self._deadline = place, wait, time.monotonic() + wait
        host, _, port = place.coordinator.rpartition(":")
        self._host, self._port, self._ending = host.strip("[]"), int(port), False
        self._peers = self._gather() if self._place.first else {0: self._report()}
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """Let an error in here be told by the process that it began in, and in a line by others."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, UserError | OSError):
                time.sleep(NOTICE)  # JAX may raise it for another has gone; then the watch ends us
            if self._place.first:
                self._ending = True
                self._release(0)
            raise

    def leave(self) -> None:
        """Say that this process has come to its end."""
        self._tell("bye")

    def _tell(self, message: str) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.sendall(f"{message}\n".encode())

    def _release(self, index: int) -> None:
        """Tell the others who has gone; process 0 goes last.

        With it goes JAX's service, and whoever is connected then aborts in many words.
        """
        self._tell(f"gone {index}")
        if self._place.first:
            deadline = time.monotonic() + NOTICE
            for peer in self._peers.values():
                peer.settimeout(max(0.01, deadline - time.monotonic()))
                _line(peer)

    def _gather(self) -> dict[int, socket.socket]:
        """As process 0: wait for the others, and tell them where JAX's service will be."""
        peers: dict[int, socket.socket] = {}
        missing = set(range(1, self._place.number))
        with self._listen() as server, progress.phase("Waiting for the other processes"):
            while missing:
                server.settimeout(max(0.0, self._deadline - time.monotonic()))
                try:
                    peer, _ = server.accept()
                except (TimeoutError, BlockingIOError):
                    names = ", ".join(map(str, sorted(missing)))
                    self._dismiss(
                        list(peers.values()),
                        f"of {self._place.number} processes these did not come to "
                        f"{self._place.coordinator} in {self._wait:.0f} s: {names}; see what they "
                        "print, or how many were started",
                    )
                index, number = _greeting(peer)
                if number != self._place.number or index not in missing:
                    wrong = f"came as process {index} of {number}, where "
                    taken = f"{self._place.number} are to come, each with a number of its own"
                    if index >= 0:
                        self._dismiss([*peers.values(), peer], wrong + taken)
                    peer.close()
                    continue
                missing.remove(index)
                peers[index] = peer
        port = _free_port()
        self.coordinator = f"{self._place.coordinator.rpartition(':')[0]}:{port}"
        for peer in peers.values():
            peer.sendall(f"go {port}\n".encode())
        return peers

    def _listen(self) -> socket.socket:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        try:
            return socket.create_server(("", self._port), family=family, dualstack_ipv6=dual)
        except OSError as error:
            raise UserError(
                f"process 0 cannot wait at port {self._port}: {error.strerror}; choose another"
            ) from None

    def _dismiss(self, peers: list[socket.socket], reason: str) -> typing.NoReturn:
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.sendall(f"no {reason}\n".encode())
        raise UserError(reason)

    def _report(self) -> socket.socket:
        """As any other process: reach process 0, and hear where JAX's service will be."""
        while True:
            try:
                peer = socket.create_connection((self._host, self._port), timeout=GREETING)
                break
            except OSError as error:
                if time.monotonic() > self._deadline:
                    raise UserError(
                        f"process 0 of {self._place.number} did not come to "
                        f"{self._place.coordinator} in {self._wait:.0f} s ({error}); see what it "
                        "prints, or whether this address is its own"
                    ) from None
                time.sleep(RETRY)
        peer.sendall(f"jft {self._place.process} {self._place.number}\n".encode())
        peer.settimeout(None)
        word, _, rest = _line(peer).partition(" ")
        if word != "go":
            raise UserError(rest or "process 0 ended before all had come; what it printed says why")
        self.coordinator = f"{self._place.coordinator.rpartition(':')[0]}:{rest}"
        return peer

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        for index, peer in self._peers.items():
            selector.register(peer, selectors.EVENT_READ, index)
        while selector.get_map():
            for key, _ in selector.select():
                word, _, rest = _line(typing.cast(socket.socket, key.fileobj)).partition(" ")
                if word != "bye" and not self._ending:
                    self._lost(int(rest) if word == "gone" else key.data)
                selector.unregister(key.fileobj)

    def _lost(self, index: int) -> typing.NoReturn:
        """End: whatever the others would do together would wait for this one for ever."""
        print(
            f"error: {self._place.name(index)} has ended, and so {self._place.name()} does; where "
            "it printed no error, it was killed; run the same command again to go on",
            file=sys.stderr,
            flush=True,
        )
        self._release(index)
        os._exit(LOST)


def _greeting(peer: socket.socket) -> tuple[int, int]:
    """Which process this is, of how many; -1 for a stranger."""
    peer.settimeout(GREETING)
    match = re.fullmatch(r"jft (\d+) (\d+)", _line(peer))
    peer.settimeout(None)
    return (int(match[1]), int(match[2])) if match else (-1, 0)


def _line(peer: socket.socket) -> str:
    """What it says next; empty where it has gone."""
    found = b""
    with contextlib.suppress(OSError):
        while len(found) < LONGEST and not found.endswith(b"\n") and (byte := peer.recv(1)):
            found += byte
    return found.decode(errors="replace").strip()


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]
