"""What a checkpoint is to hold: shape, type and SHA-256 of every array, by path.

An array that lies on the devices of one process is hashed as a whole, in row-major order. Of one
that is spread over several, each process hashes its own shards, and the manifest says where each
begins and ends; when it is restored on another mesh, the shards are cut out of it anew.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from jft.runtime import processes

# By path; `shards` only where there are several.
Manifest = dict[str, dict[str, Any]]
# Where a shard begins and ends, in each dimension.
Bounds = tuple[tuple[int, int], ...]
FIELDS = {"shape", "dtype", "sha256"}


def hash_arrays(arrays: dict[str, Any]) -> Manifest:
    """The manifest of some arrays, the same on all processes."""
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
    """The paths of arrays that are not what the manifest says, the same on all processes."""
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
    """Whether a value read from JSON is a manifest."""
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
    """Of the array as a whole, or of its shards where they lie with several processes."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return [tuple((0, size) for size in array.shape)]
    indices = array.sharding.devices_indices_map(array.shape).values()
    return sorted({_of_index(index, array.shape) for index in indices})


def _of_index(index: tuple[slice, ...], shape: tuple[int, ...]) -> Bounds:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _digests(parts: list[tuple[Any, Bounds]]) -> list[str]:
    """The SHA-256 of each part of an array; each is hashed by one process, and known to all."""
    turns = [_turn(i, *part) for i, part in enumerate(parts)]
    with ThreadPoolExecutor() as pool:
        mine = list(pool.map(lambda turn: hashlib.sha256(turn()).digest() if turn else b"", turns))
    if processes.count() == 1:
        return [digest.hex() for digest in mine]
    rows = np.zeros((len(mine), hashlib.sha256().digest_size), np.uint8)
    for row, digest in zip(rows, mine, strict=True):
        row[: len(digest)] = np.frombuffer(digest, np.uint8)
    # Zeros but from the process whose turn it was.
    return [row.tobytes().hex() for row in multihost_utils.process_allgather(rows).max(axis=0)]


def _turn(number: int, array, bounds: Bounds) -> Callable[[], memoryview] | None:
    """What gives the bytes of a part, if it is this process that hashes it."""
    mine = number % processes.count() == _here()
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return functools.partial(_bytes, array, bounds) if mine else None
    held = array.sharding.devices_indices_map(array.shape).values()
    if bounds in {_of_index(index, array.shape) for index in held}:
        for shard in array.addressable_shards:
            if shard.replica_id == 0 and _of_index(shard.index, array.shape) == bounds:
                return functools.partial(_bytes, shard.data)
        return None
    # Laid out otherwise than when it was hashed: all processes have to help to put it together.
    begins, sizes = zip(*((begin, end - begin) for begin, end in bounds), strict=True)
    part = _cut(array, begins, sizes)
    return functools.partial(_bytes, np.asarray(part)) if mine else None


def _here() -> int:
    return jax.process_index() if processes.count() > 1 else 0


def _cut(array: jax.Array, begins: tuple[int, ...], sizes: tuple[int, ...]) -> jax.Array:
    """A part of an array, on all devices."""
    assert isinstance(array.sharding, NamedSharding)
    everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
    return _program(everywhere)(array, begins, sizes)


@functools.lru_cache
def _program(layout: NamedSharding) -> Callable[..., jax.Array]:
    return jax.jit(jax.lax.dynamic_slice, static_argnums=2, out_shardings=layout)


def _bytes(array, bounds: Bounds = ()) -> memoryview:
    part = np.asarray(array)[tuple(slice(*pair) for pair in bounds)]
    return np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
