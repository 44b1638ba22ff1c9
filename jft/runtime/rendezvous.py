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
from typing import NamedTuple

from jft.errors import AbsentError, UserError
from jft.runtime import progress

# Seconds between attempts to reach process 0, for a greeting, and for others to end first.
RETRY, GREETING, FAREWELL = 0.2, 10.0, 2.0
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

    def abandon(self) -> None:
        """Before this process ends in the middle: the others end with a line each, and first."""
        if self._place.first:
            self._ending = True
            self._release(0)

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
            deadline = time.monotonic() + FAREWELL
            for peer in self._peers.values():
                _line(peer, deadline - time.monotonic())

    def _gather(self) -> dict[int, socket.socket]:
        """As process 0: wait for the others, and tell them where JAX's service will be."""
        peers: dict[int, socket.socket] = {}
        missing = set(range(1, self._place.number))
        with self._listen() as server, progress.phase("Waiting for the other processes"):
            while missing := missing | _gone(peers):  # who has gone may be started again
                server.settimeout(max(0.0, self._deadline - time.monotonic()))
                try:
                    peer, _ = server.accept()
                except (TimeoutError, BlockingIOError):
                    names = ", ".join(map(str, sorted(missing)))
                    self._dismiss(
                        AbsentError,
                        list(peers.values()),
                        f"of {self._place.number} processes these did not come to "
                        f"{self._place.coordinator} in {self._wait:.0f} s: {names}; see what they "
                        "print, or how many were started",
                    )
                index, number = _greeting(peer)
                missing |= _gone(peers)
                if number != self._place.number or index not in missing:
                    wrong = f"came as process {index} of {number}, where "
                    taken = f"{self._place.number} are to come, each with a number of its own"
                    if index >= 0:
                        self._dismiss(UserError, [*peers.values(), peer], wrong + taken)
                    peer.close()
                    continue
                missing.remove(index)
                peers[index] = peer
        port = _free_port()
        self.coordinator = f"{self._place.coordinator.rpartition(':')[0]}:{port}"
        for peer in peers.values():
            with contextlib.suppress(OSError):  # who has gone is noticed soon
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

    def _dismiss(
        self, error: type[UserError], peers: list[socket.socket], reason: str
    ) -> typing.NoReturn:
        word = "late" if error is AbsentError else "no"
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.sendall(f"{word} {reason}\n".encode())
        raise error(reason)

    def _report(self) -> socket.socket:
        """As any other process: reach process 0, and hear where JAX's service will be."""
        while True:
            try:
                peer = socket.create_connection((self._host, self._port), timeout=GREETING)
                break
            except OSError as error:
                if time.monotonic() > self._deadline:
                    raise AbsentError(
                        f"process 0 of {self._place.number} did not come to "
                        f"{self._place.coordinator} in {self._wait:.0f} s ({error}); see what it "
                        "prints, or whether this address is its own"
                    ) from None
                time.sleep(RETRY)
        peer.sendall(f"jft {self._place.process} {self._place.number}\n".encode())
        # Process 0 may have begun to wait only now.
        word, _, rest = _line(peer, self._wait + GREETING).partition(" ")
        if word == "no":
            raise UserError(rest)
        if word != "go":
            raise AbsentError(
                rest or "process 0 ended, or hangs, before all had come; see what it printed"
            )
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
        os._exit(AbsentError.code)


def _greeting(peer: socket.socket) -> tuple[int, int]:
    """Which process this is, of how many; -1 for a stranger."""
    match = re.fullmatch(r"jft (\d+) (\d+)", _line(peer, GREETING))
    return (int(match[1]), int(match[2])) if match else (-1, 0)


def _gone(peers: dict[int, socket.socket]) -> set[int]:
    """Take out those that have closed their connections; to say something it is too early."""
    with selectors.DefaultSelector() as selector:
        for index, peer in peers.items():
            selector.register(peer, selectors.EVENT_READ, index)
        gone = {key.data for key, _ in selector.select(0)}
    for index in gone:
        peers.pop(index).close()
    return gone


def _line(peer: socket.socket, seconds: float | None = None) -> str:
    """What it says next, in so many seconds; empty where it has gone, or says nothing."""
    found, deadline = b"", None if seconds is None else time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while len(found) < LONGEST and not found.endswith(b"\n"):
            peer.settimeout(None if deadline is None else max(0.01, deadline - time.monotonic()))
            byte = peer.recv(1)
            if not byte or (deadline is not None and time.monotonic() > deadline):
                break
            found += byte
    with contextlib.suppress(OSError):
        peer.settimeout(None)
    return found.decode(errors="replace").strip()


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]
