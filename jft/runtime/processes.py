"""The processes of a run: one, or as many as a cluster starts of the same command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence

from jft.errors import AbsentError, UserError
from jft.runtime import progress
from jft.runtime.rendezvous import GRACE, ProcessInfo, Rendezvous

# Clusters that JAX knows by their environment, by its names for them.
CLUSTERS = ("slurm", "ompi", "gketpu", "gcetpu")
# Variables that tell how many tasks a node has, as the launchers write it: 1(x4), or 8.
TASKS_OF_NODE = ("SLURM_STEP_TASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE")

# Seconds; sockets can count no more than some billions.
LONGEST_WAIT = 10**6
# Seconds by which the last process has to reach a barrier: more than the longest compilation.
BARRIER_SECONDS = 3600.0

# Characters of two facts that are shown in messages, and facts in a message.
LONGEST_FACT, MOST_FACTS = 100, 6

_here = ProcessInfo("", 1, 0)
_rendezvous: Rendezvous | None = None


def count() -> int:
    """Count the processes of this run."""
    return _here.num_processes


def first() -> bool:
    """Check whether this process is the one that writes results and prints progress."""
    return _here.is_first


def name() -> str:
    """Name this process, as messages do."""
    return _here.name()


def run_id() -> str:
    """Return a text that all processes of this run know, and no others; empty for one alone."""
    return _here.run_id


def barrier(label: str) -> None:
    """Wait until all processes have come here.

    Args:
      label: names the barrier, no other of this run.

    Raises:
      AbsentError: some did not come in `BARRIER_SECONDS`; names them.
    """
    if count() == 1:
        return
    import jax

    try:
        _coordination_client().wait_at_barrier(label, int(BARRIER_SECONDS * 1000))
    except jax.errors.JaxRuntimeError as error:
        _, timed_out, names = str(error).partition("timed out task names:")
        if not timed_out:
            raise
        if not first():
            time.sleep(GRACE)  # process 0 gets the same error, prints it and ends this process
        absent = ", ".join(re.findall(r"^\S*?(\d+)$", names, re.MULTILINE))
        raise AbsentError(
            f"of {count()} processes these did not come to the barrier {label!r} in "
            f"{BARRIER_SECONDS:.0f} s: {absent}; see what they print; run the same command again "
            "to go on"
        ) from None


def agree(label: str, facts: Callable[[], Mapping[str, str]]) -> None:
    """Check that what a run depends on is the same for all processes.

    Args:
      label: names the check, no other of this run.
      facts: returns texts, such as hashes, by what they are of; the same keys everywhere. It is not
        called where there is one process.

    Raises:
      UserError: some differ; says which processes, and in what. All processes raise it.
    """
    if count() == 1:
        return
    client, wait = _coordination_client(), int(BARRIER_SECONDS * 1000)
    barrier(f"compare {label}")  # names those who do not come
    client.key_value_set(f"jft/{label}/{_here.process_id}", json.dumps(dict(facts())))
    if first():
        found = [client.blocking_key_value_get(f"jft/{label}/{i}", wait) for i in range(count())]
        verdict = _differences([json.loads(text) for text in found])
        client.key_value_set(f"jft/{label}/verdict", f"verdict: {verdict}")
    verdict = client.blocking_key_value_get(f"jft/{label}/verdict", wait).removeprefix("verdict: ")
    if verdict:
        barrier(f"{label} differ")
        if _rendezvous:
            _rendezvous.leave()  # none is to end because another has
        raise UserError(verdict)


def _differences(facts: Sequence[Mapping[str, str]]) -> str:
    """Say which processes differ from most, or from process 0, and in what; empty if none do."""
    parts = []
    for name in facts[0]:
        values = [each.get(name, "") for each in facts]
        usual = max(values, key=lambda value: (values.count(value), value == values[0]))
        for i, value in enumerate(values):
            if value != usual:
                # Hashes are of no use to a reader.
                shown = (
                    f" ({value} instead of {usual})" if len(value + usual) < LONGEST_FACT else ""
                )
                parts.append(f"process {i} has other {name} than the rest{shown}")
    more = f"; and {len(parts) - MOST_FACTS} more" if len(parts) > MOST_FACTS else ""
    remedy = "; give all processes the same, and start them again"
    return "; ".join(parts[:MOST_FACTS]) + more + remedy if parts else ""


def _coordination_client() -> typing.Any:
    """Return JAX's client of its coordination service.

    It is private, but no public function of JAX waits at a barrier with a time-out:
    `sync_global_devices` waits for ever, and names no process.
    """
    from jax._src import distributed

    return distributed.global_state.client


def abort() -> None:
    """End the other processes, since this one is about to end early."""
    if _rendezvous:
        _rendezvous.abort()


@contextlib.contextmanager
def connect(coordinator: str, number: int, index: int, wait: float) -> Iterator[None]:
    """Connect this process with the others of its run, if there are others.

    Args:
      coordinator: host:port of process 0; empty: the cluster's environment says it.
      number: how many processes there are.
      index: which of them this is.
      wait: seconds in which all have to come.

    Raises:
      UserError: numbers that do not fit together.
      AbsentError: some did not come; names them.
    """
    global _here, _rendezvous
    if not 0 <= wait <= LONGEST_WAIT:
        raise UserError(f"--wait={wait}: must be from 0 to {LONGEST_WAIT} seconds")
    info = _from_flags(coordinator, number, index) if coordinator or number else _detect(wait)
    if info.num_processes == 1:
        yield
        return
    import jax

    _here = info
    progress.console.quiet = not first()
    _rendezvous = Rendezvous(info, wait)
    # The address of JAX's service has a port of its own, so no other run has this id.
    _here = info._replace(run_id=_rendezvous.coordinator)
    # JAX's handler of SIGTERM would replace ours; training.stop lets processes stop together.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        _rendezvous.coordinator,
        info.num_processes,
        info.process_id,
        local_device_ids=info.local_device_ids,
        cluster_detection_method="deactivate",
        initialization_timeout=int(wait) + 1,
    )
    progress.say(f"{info.num_processes} processes, {jax.device_count()} devices")
    yield
    jax.distributed.shutdown()  # waits for all
    _rendezvous.leave()


def _from_flags(coordinator: str, number: int, index: int) -> ProcessInfo:
    match = re.fullmatch(r".+:(\d{1,5})", coordinator)
    if not match or not 0 < int(match[1]) < 1 << 16:
        raise UserError(f"--coordinator={coordinator}: is written HOST:PORT, those of process 0")
    if number < 1:
        raise UserError(f"--processes={number}: how many processes are to meet at {coordinator}?")
    if not 0 <= index < number:
        raise UserError(
            f"--process={index}: of {number} processes it is one from 0 to {number - 1}"
        )
    return ProcessInfo(coordinator, number, index)


def _detect(wait: float) -> ProcessInfo:
    """Read the launcher's environment, as JAX does."""
    # Private, but no public function of JAX says which processes there are before it connects them.
    from jax._src.clusters import ClusterEnv

    for env in ClusterEnv._cluster_types:
        if env.name in CLUSTERS and env.is_env_present():
            number = env.get_process_count()
            if number == 1:
                break
            port = os.environ.get("JAX_COORDINATOR_PORT")
            address = env.get_coordinator_address(
                timeout_secs=int(wait), override_coordinator_port=port
            )
            return ProcessInfo(address, number, env.get_process_id(), _own_devices(env))
    return _here


def _own_devices(env: typing.Any) -> list[int] | None:
    """Give each task of a node one GPU, or all of them to its only task."""
    tasks = next((os.environ[name] for name in TASKS_OF_NODE if name in os.environ), "")
    local = env.get_local_process_id()
    return None if local is None or re.match(r"1(\D|$)", tasks) else [local]
