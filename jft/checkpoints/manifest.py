"""Manifests of checkpoints: shape, type and SHA-256 of every array, by path.

An array that lies on the devices of one process is hashed as a whole, in row-major order. An array
that is spread over several processes is hashed shard by shard, each by a process that holds it, and
the manifest says where each shard begins and ends. If the array is restored on another mesh, the
same shards are cut out of it to compare them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from jft.errors import UserError, machine_trouble
from jft.runtime import processes

# A record of `FIELDS` for each path, and `shards` where an array has several.
Manifest = dict[str, dict[str, Any]]
# Begin and end of a shard in each dimension.
Bounds = tuple[tuple[int, int], ...]
FIELDS = {"shape", "dtype", "sha256"}
# Where orbax keeps the manifest in the folder of a step.
FILE = "manifest/metadata"


def saved_steps(workdir: Path) -> list[int]:
    """List the steps of a run that are whole, ascending; no device is touched.

    Orbax gives a folder its number when it is whole.
    """
    folder = workdir / "checkpoints"
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def read(workdir: Path, step: int) -> Manifest:
    """Read the manifest of a step.

    Raises:
      UserError: it is missing, damaged, or of another step.
    """
    file = workdir / "checkpoints" / str(step) / FILE
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(workdir, step, "manifest cannot be read", error) from None
    if not isinstance(raw, dict) or raw.get("step") != step:
        raise damaged(workdir, step, "its manifest is not of this step")
    arrays = raw.get("arrays")
    if arrays is None or not is_manifest(arrays):
        raise damaged(workdir, step, "its manifest is not what jft writes")
    return arrays


def unreadable(workdir: Path, step: int, what: str, error: BaseException) -> UserError:
    """Say that a checkpoint cannot be read: that it is damaged, unless the machine refused it."""
    if reason := machine_trouble(error):
        return UserError(
            f"{workdir / 'checkpoints' / str(step)}: {what}: {reason}, and run the same command "
            "again; the checkpoint may be whole"
        )
    return damaged(workdir, step, f"{what}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """Return what an error says, without the description of the whole store by tensorstore."""
    return re.split(r"\n|\. See full| \[", str(error).strip())[0] or type(error).__name__


def damaged(workdir: Path, step: int, what: str) -> UserError:
    """Say that a checkpoint is damaged, and which one before it is left."""
    before = [s for s in saved_steps(workdir) if s < step]
    offer = (
        f"to go on from step {before[-1]}, remove that folder and run the same command again"
        if before
        else "no earlier step is left; remove the workdir and train again"
    )
    return UserError(f"{workdir / 'checkpoints' / str(step)} is damaged: {what}; {offer}")


def hash_arrays(arrays: dict[str, Any]) -> Manifest:
    """Hash arrays, by path, into a manifest; it is the same on all processes."""
    bounds = {path: _bounds(array) for path, array in arrays.items()}
    digests = _digests([(arrays[path], part) for path, parts in bounds.items() for part in parts])
    found: Manifest = {}
    for path, array in arrays.items():
        parts = [digests.pop(0) for _ in bounds[path]]
        record = {"shape": list(array.shape), "dtype": str(array.dtype)}
        if len(parts) == 1:
            found[path] = record | {"sha256": parts[0]}
            continue
        shards = [
            {"bounds": [list(pair) for pair in part], "sha256": digest}
            for part, digest in zip(bounds[path], parts, strict=True)
        ]
        whole = hashlib.sha256("".join(parts).encode()).hexdigest()
        found[path] = record | {"sha256": whole, "shards": shards}
    return found


def differences(arrays: dict[str, Any], manifest: Manifest) -> list[str]:
    """List the paths of arrays that differ from their SHA-256; the same on all processes."""
    wanted = []
    for path, array in arrays.items():
        record = manifest[path]
        whole = {"bounds": [[0, size] for size in array.shape], "sha256": record["sha256"]}
        for shard in record.get("shards", [whole]):
            bounds = tuple((begin, end) for begin, end in shard["bounds"])
            wanted.append((path, bounds, shard["sha256"]))
    digests = _digests([(arrays[path], bounds) for path, bounds, _ in wanted])
    wrong = [
        path for (path, _, digest), found in zip(wanted, digests, strict=True) if found != digest
    ]
    return list(dict.fromkeys(wrong))


def is_manifest(value) -> bool:
    """Check whether a value read from JSON has the form of a manifest."""
    return isinstance(value, dict) and all(map(_is_record, value.values()))


def _is_record(value) -> bool:
    if not isinstance(value, dict) or value.keys() - {"shards"} != FIELDS:
        return False
    shards = value.get("shards", [])
    return isinstance(shards, list) and all(
        isinstance(shard, dict)
        and isinstance(shard.get("bounds"), list)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in shard["bounds"])
        for shard in shards
    )


def _bounds(array) -> list[Bounds]:
    """List the shards of an array that lies with several processes, or one shard that is all."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return [tuple((0, size) for size in array.shape)]
    indices = array.sharding.devices_indices_map(array.shape).values()
    return sorted({_index_bounds(index, array.shape) for index in indices})


def _index_bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> Bounds:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _digests(parts: list[tuple[Any, Bounds]]) -> list[str]:
    """Compute the SHA-256 of each part of an array: one process hashes it, all get the result."""
    readers = [_reader_if_mine(i, *part) for i, part in enumerate(parts)]
    with ThreadPoolExecutor() as pool:
        mine = list(
            pool.map(lambda read: hashlib.sha256(read()).digest() if read else b"", readers)
        )
    if processes.count() == 1:
        return [digest.hex() for digest in mine]
    digests = np.zeros((len(mine), hashlib.sha256().digest_size), np.uint8)
    for into, digest in zip(digests, mine, strict=True):
        into[: len(digest)] = np.frombuffer(digest, np.uint8)
    # The maximum is the digest: all processes but the one that hashed the part give zeros.
    gathered = multihost_utils.process_allgather(digests).max(axis=0)
    return [digest.tobytes().hex() for digest in gathered]


def _reader_if_mine(number: int, array, bounds: Bounds) -> Callable[[], memoryview] | None:
    """Return a function that gives the bytes of a part, or None if another process hashes it.

    Args:
      number: index of the part; processes share the parts that all of them hold by it.
      array: all of it.
      bounds: the part.
    """
    mine = number % processes.count() == _process_index()
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return functools.partial(_bytes, array, bounds) if mine else None
    held = array.sharding.devices_indices_map(array.shape).values()
    if bounds in {_index_bounds(index, array.shape) for index in held}:
        for shard in array.addressable_shards:
            # Devices that hold copies of a shard number them; the holder of copy 0 hashes it.
            if shard.replica_id == 0 and _index_bounds(shard.index, array.shape) == bounds:
                return functools.partial(_bytes, shard.data)
        return None
    # The mesh is not the one of the save. The part lies with several processes, and gathering it
    # is a program that all of them have to run, also those that do not hash it.
    begins, sizes = zip(*((begin, end - begin) for begin, end in bounds), strict=True)
    part = _replicated_slice(array, begins, sizes)
    return functools.partial(_bytes, np.asarray(part)) if mine else None


def _process_index() -> int:
    return jax.process_index() if processes.count() > 1 else 0


def _replicated_slice(
    array: jax.Array, begins: tuple[int, ...], sizes: tuple[int, ...]
) -> jax.Array:
    """Copy a part of an array to all devices."""
    assert isinstance(array.sharding, NamedSharding)
    everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
    return _slice_program(everywhere)(array, begins, sizes)


@functools.lru_cache
def _slice_program(layout: NamedSharding) -> Callable[..., jax.Array]:
    return jax.jit(jax.lax.dynamic_slice, static_argnums=2, out_shardings=layout)


def _bytes(array, bounds: Bounds = ()) -> memoryview:
    """Return the bytes of a part of an array in row-major order; without bounds, of all of it."""
    part = np.asarray(array)[tuple(slice(*pair) for pair in bounds)]
    return np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
