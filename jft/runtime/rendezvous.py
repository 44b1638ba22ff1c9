"""The rendezvous of a run's processes: names those that never come, and those that end early.

JAX connects processes too, but where one never comes or ends early, it aborts without saying which.
So the others first connect to process 0 at the coordinator's address. These connections stay open
to the end: one that closes without a farewell names a process that has ended, and then all end.
Messages are lines:

    jft 1 3       handshake, to process 0: this is process 1 of 3
    go 41235      from process 0: all have come, and JAX's service will be at this port
    no REASON     from process 0: it rejects the run, for a mistake of the user
    late REASON   from process 0: a process did not come in time
    gone 2        process 2 has ended early
    bye           the sender has done its work
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
import typing
from collections.abc import Iterable
from multiprocessing import connection
from typing import NamedTuple

from jft.errors import AbsentError, UserError
from jft.runtime import progress, threads

# Seconds between attempts to reach process 0, for a handshake, and for the others to end first.
RETRY, HANDSHAKE, GRACE = 0.2, 10.0, 2.0
# Bytes of a message.
LONGEST = 4096


class ProcessInfo(NamedTuple):
    """The place of this process in a run.

    Attributes:
      coordinator: host:port at which process 0 listens.
      num_processes: how many make up the run.
      process_id: which of them this is, from 0.
      local_device_ids: the GPUs of this process alone; None: all that it sees.
      run_id: known to all processes of this run and to no others; empty for one alone.
    """

    coordinator: str
    num_processes: int
    process_id: int
    local_device_ids: list[int] | None = None
    run_id: str = ""

    @property
    def is_first(self) -> bool:
        """True for process 0."""
        return not self.process_id

    def name(self, process_id: int | None = None) -> str:
        """Name this process, or another one, as messages do."""
        shown = self.process_id if process_id is None else process_id
        return f"process {shown} of {self.num_processes}"


class Rendezvous:
    """The connections between process 0 and all others, which also show who has ended.

    Attributes:
      coordinator: host:port for JAX's own service.
    """

    def __init__(self, info: ProcessInfo, wait: float):
        self._info, self._wait, self._deadline = info, wait, time.monotonic() + wait
        self._host, _, self._port = info.coordinator.rpartition(":")
        self._aborting = False
        self._peers = self._accept() if info.is_first else {0: self._connect()}
        threads.start(self._watch, "the watch on the other processes")

    def abort(self) -> None:
        """End the other processes, since this one is about to end early.

        Only process 0 has to: it must end last, and the end of any other shows by itself.
        """
        if self._info.is_first:
            self._aborting = True
            self._announce(0)

    def leave(self) -> None:
        """Tell the others that this process has done its work."""
        _send(self._peers.values(), "bye")

    def _announce(self, ended: int) -> None:
        """Tell the others that a process has ended early; process 0 also waits for them to end.

        JAX's service ends with process 0, and a process still connected to it then aborts, with a
        long message of its own.
        """
        _send(self._peers.values(), f"gone {ended}")
        if self._info.is_first:
            deadline = time.monotonic() + GRACE
            for peer in self._peers.values():
                _read_line(peer, deadline - time.monotonic())

    def _accept(self) -> dict[int, socket.socket]:
        """Accept all other processes, and tell them where JAX's service will be."""
        info, peers = self._info, dict[int, socket.socket]()
        with self._listen() as server, progress.phase("Waiting for the other processes"):
            while missing := _missing(info, peers):
                server.settimeout(max(0.0, self._deadline - time.monotonic()))
                try:
                    peer, _ = server.accept()
                except (TimeoutError, BlockingIOError):
                    reason = (
                        f"of {info.num_processes} processes these did not come to "
                        f"{info.coordinator} in {self._wait:.0f} s: "
                        f"{', '.join(map(str, missing))}; see what they print, or how many were "
                        "started"
                    )
                    _send(peers.values(), f"late {reason}")
                    raise AbsentError(reason) from None
                match = re.fullmatch(r"jft (\d+) (\d+)", _read_line(peer, HANDSHAKE))
                if not match:  # such as a port scanner
                    peer.close()
                    continue
                process_id, number = map(int, match.groups())
                if number != info.num_processes or process_id not in _missing(info, peers):
                    reason = (
                        f"came as process {process_id} of {number}, where {info.num_processes} are "
                        "to come, each with a number of its own"
                    )
                    _send([*peers.values(), peer], f"no {reason}")
                    raise UserError(reason)
                peers[process_id] = peer
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        self.coordinator = f"{self._host}:{port}"
        _send(peers.values(), f"go {port}")
        return peers

    def _listen(self) -> socket.socket:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        try:
            return socket.create_server(("", int(self._port)), family=family, dualstack_ipv6=dual)
        except OSError as error:
            raise UserError(
                f"process 0 cannot wait at port {self._port}: {error.strerror}; choose another"
            ) from None

    def _connect(self) -> socket.socket:
        """Connect to process 0, and learn where JAX's service will be."""
        address = self._host.strip("[]"), int(self._port)
        while True:
            try:
                peer = socket.create_connection(address, timeout=HANDSHAKE)
                break
            except OSError as error:
                if time.monotonic() > self._deadline:
                    raise AbsentError(
                        f"process 0 of {self._info.num_processes} did not come to "
                        f"{self._info.coordinator} in {self._wait:.0f} s ({error}); see what it "
                        "prints, or whether this address is its own"
                    ) from None
                time.sleep(RETRY)
        _send([peer], f"jft {self._info.process_id} {self._info.num_processes}")
        # Process 0 may have started to listen only now, and then waits as long as this one has.
        word, _, rest = _read_line(peer, self._wait + HANDSHAKE).partition(" ")
        if word == "no":
            raise UserError(rest)
        if word != "go":
            raise AbsentError(
                rest or "process 0 ended, or hangs, before all had come; see what it printed"
            )
        self.coordinator = f"{self._host}:{rest}"
        return peer

    def _watch(self) -> None:
        """End this process when another has ended without a farewell."""
        open_peers = {peer: process_id for process_id, peer in self._peers.items()}
        while open_peers:
            for peer in _ready(open_peers):
                word, _, rest = _read_line(peer).partition(" ")
                if word != "bye" and not self._aborting:
                    self._end(int(rest) if word == "gone" else open_peers[peer])
                del open_peers[peer]

    def _end(self, ended: int) -> typing.NoReturn:
        """End this process, since a collective operation would wait for the other for ever."""
        print(
            f"error: {self._info.name(ended)} has ended, and so {self._info.name()} does; where "
            "it printed no error, it was killed; run the same command again to go on",
            file=sys.stderr,
            flush=True,
        )
        self._announce(ended)
        os._exit(AbsentError.code)


def _missing(info: ProcessInfo, peers: dict[int, socket.socket]) -> list[int]:
    """List the processes that have yet to come; drops those that came and closed again.

    Such a process has ended, and may be started again. None sends anything before all have come.
    """
    for closed in _ready(peers.values(), seconds=0):
        [process_id] = [i for i, peer in peers.items() if peer is closed]
        peers.pop(process_id).close()
    return [i for i in range(1, info.num_processes) if i not in peers]


def _ready(peers: Iterable[socket.socket], seconds: float | None = None) -> list[socket.socket]:
    """Wait for peers that have sent something or have closed."""
    return typing.cast(list[socket.socket], connection.wait(peers, seconds))


def _send(peers: Iterable[socket.socket], message: str) -> None:
    """Send a line; a peer that has ended is noticed when it is read from."""
    for peer in peers:
        with contextlib.suppress(OSError):
            peer.sendall(f"{message}\n".encode())


def _read_line(peer: socket.socket, seconds: float | None = None) -> str:
    """Read a line, all of it in `seconds`; what has come until then, or until the peer closes."""
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
