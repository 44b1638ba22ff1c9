"""Which mesh axis each dimension letter lies on: one table for weights, one for activations."""

from __future__ import annotations

import math

import jax
from jax.sharding import PartitionSpec

# Letters: B rows, T tokens, D embedding, N heads, K key-value heads, H head size, F feed-forward,
# V vocabulary, L layers, M loss entries. A letter that is not listed is not split.
PARAMETERS = {"D": "fsdp", "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor"}
ACTIVATIONS = {"B": ("data", "fsdp"), "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor"}


def spec(letters: str, shape: tuple[int, ...], mesh_shape, table) -> PartitionSpec:
    """The partition of an array whose dimensions the letters name.

    A dimension that its mesh axes do not divide stays whole: three key-value heads on two tensor
    shards are kept by both.
    """
    axes = []
    for letter, size in zip(letters, shape, strict=True):
        axis = table.get(letter)
        names = (axis,) if isinstance(axis, str) else axis or ()
        shards = 1
        for name in names:
            shards *= mesh_shape[name]
        axes.append(axis if shards > 1 and size % shards == 0 else None)
    return PartitionSpec(*axes)


def local_size(letters: str, shape: tuple[int, ...]) -> int:
    """Elements of an activation that a device of the ambient mesh holds."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return math.prod(shape)
    partition = spec(letters, shape, mesh.shape, ACTIVATIONS)
    return math.prod(jax.sharding.NamedSharding(mesh, partition).shard_shape(shape))


def constrain(x: jax.Array, letters: str) -> jax.Array:
    """Pin an activation to its layout on the ambient mesh; without a mesh, do nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(letters, x.shape, mesh.shape, ACTIVATIONS))
