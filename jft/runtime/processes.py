"""The processes of a run: one, or as many as a cluster starts of the same command."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from jft.errors import UserError
from jft.runtime import progress
from jft.runtime.rendezvous import Place, Roll

# Clusters that JAX knows by their environment. That of Kubernetes is asked only where the variable
# says that there are several: it wants a package of its own, and a pod may be alone.
CLUSTERS = ("slurm", "ompi", "gketpu", "gcetpu")
K8S_INDEX = "JOB_COMPLETION_INDEX"
# How many tasks a node has, as the launchers say it: 1(x4), or 8.
TASKS_OF_NODE = ("SLURM_STEP_TASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE")

# Seconds, of which sockets can count no more than some billions.
LONGEST_WAIT = 10**6

_here = Place("", 1, 0)
_roll: Roll | None = None


def count() -> int:
    """How many processes make up this run."""
    return _here.number


def first() -> bool:
    """Whether this process writes the results, and says how things go."""
    return _here.first


def name() -> str:
    """This one, as messages call it."""
    return _here.name()


def meeting() -> str:
    """What all processes of this run know, and those of no other; empty for one alone."""
    return _here.meeting


def meet(label: str) -> None:
    """Wait until all processes are here; `label` tells one meeting from another."""
    if _here.number > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(label)


def abandon() -> None:
    """Before this process ends in the middle: let the others end first, with a line each."""
    if _roll:
        _roll.abandon()


@contextlib.contextmanager
def joined(coordinator: str, number: int, index: int, wait: float) -> Iterator[None]:
    """Be one of several processes, where there are several.

    Args:
      coordinator: host:port of process 0; empty: as the cluster's environment says.
      number: how many processes there are.
      index: which one this is.
      wait: seconds in which all have to come.

    Raises:
      UserError: one did not come, and which; numbers that do not fit together.
    """
    global _here, _roll
    if not 0 <= wait <= LONGEST_WAIT:
        raise UserError(f"--wait={wait}: must be from 0 to {LONGEST_WAIT} seconds")
    place = _given(coordinator, number, index) if coordinator or number else _detected(wait)
    if place.number == 1:
        yield
        return
    import jax

    _here = place
    progress.console.quiet = not first()
    roll = _roll = Roll(place, wait)
    _here = place._replace(meeting=roll.coordinator)
    # Its handler would keep SIGTERM from ours; see training.loop for how processes stop together.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        roll.coordinator,
        place.number,
        place.process,
        local_device_ids=place.local_device_ids,
        cluster_detection_method="deactivate",
        initialization_timeout=int(wait) + 1,
    )
    progress.say(f"{place.number} processes, {jax.device_count()} devices")
    yield
    jax.distributed.shutdown()  # waits for all
    roll.leave()


def _given(coordinator: str, number: int, index: int) -> Place:
    match = re.fullmatch(r".+:(\d{1,5})", coordinator)
    if not match or not 0 < int(match[1]) < 1 << 16:
        raise UserError(f"--coordinator={coordinator}: is written HOST:PORT, those of process 0")
    if number < 1:
        raise UserError(f"--processes={number}: how many processes are to meet at {coordinator}?")
    if not 0 <= index < number:
        raise UserError(
            f"--process={index}: of {number} processes it is one from 0 to {number - 1}"
        )
    return Place(coordinator, number, index)


def _detected(wait: float) -> Place:
    """What the launcher's environment says, as JAX reads it."""
    # No public function of JAX says who is to come before it waits for them.
    from jax._src.clusters import ClusterEnv

    known = (*CLUSTERS, *(["k8s"] if K8S_INDEX in os.environ else []))
    for env in ClusterEnv._cluster_types:
        if env.name in known and env.is_env_present():
            number = env.get_process_count()
            if number == 1:
                break
            port = os.environ.get("JAX_COORDINATOR_PORT")
            address = env.get_coordinator_address(
                timeout_secs=int(wait), override_coordinator_port=port
            )
            return Place(address, number, env.get_process_id(), _own_devices(env))
    return _here


def _own_devices(env) -> list[int] | None:
    """One GPU for each task of a node, or all of them for its only task."""
    tasks = next((os.environ[name] for name in TASKS_OF_NODE if name in os.environ), "")
    local = env.get_local_process_id()
    return None if local is None or re.match(r"1(\D|$)", tasks) else [local]
