"""Sharding by dimension letters: one table of mesh axes for weights, one for activations.

Example, on a mesh of data=4, fsdp=2, tensor=2: a kernel NHD is split as (tensor, -, fsdp) where it
is stored, and gathered over fsdp where a layer computes with it; activations BTNH are split as
((data, fsdp), -, tensor, -).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec

from jft.errors import UserError

# Dimension letter (`jft.batch`) -> mesh axes that split it. Other dimensions are not split.
PARAMETERS = {"D": "fsdp", "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor"}
ACTIVATIONS = {"B": ("data", "fsdp"), "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor"}
# Embeddings that were just looked up, before they are laid out as other activations: split over D
# as the table is, so that they move between devices and not the table, which is larger.
LOOKED_UP = {"B": "data", "D": "fsdp"}
# Dimensions that a mesh has to divide, and their names in messages. Any other stays whole where the
# mesh does not divide it, such as three key-value heads on two tensor shards, or an odd vocabulary.
DIVIDED = {"D": "embedding", "N": "heads", "F": "feed-forward"}


def spec(dims: str, shape: tuple[int, ...], mesh_shape, table) -> PartitionSpec:
    """Choose the partition of an array.

    A dimension that its mesh axes do not divide stays whole; `check_mesh` refuses some of these.

    Args:
      dims: the letters of its dimensions.
      shape: their sizes.
      mesh_shape: sizes of the mesh's axes.
      table: `PARAMETERS`, `ACTIVATIONS` or `LOOKED_UP`.

    Raises:
      ValueError: the table has two of the dimensions on one axis.
    """
    axes: list[str | tuple[str, ...] | None] = []
    used: list[str] = []
    for dim, size in zip(dims, shape, strict=True):
        axis = table.get(dim)
        names = (axis,) if isinstance(axis, str) else axis or ()
        shards = 1
        for name in names:
            shards *= mesh_shape[name]
        split = shards > 1 and size % shards == 0
        axes.append(axis if split else None)
        used += names if split else ()
    if len(used) > len(set(used)):
        raise ValueError(f"two of the dimensions {dims} lie on one axis of the mesh: {axes}")
    return PartitionSpec(*axes)


def check_mesh(sizes: dict[str, int], mesh_shape: Mapping[str, int]) -> None:
    """Check that a mesh divides the dimensions of `DIVIDED`.

    Args:
      sizes: the model's size of each of these letters.
      mesh_shape: sizes of the mesh's axes.

    Raises:
      UserError: naming the axis, the dimension and the sizes that would do.
    """
    for dim, what in DIVIDED.items():
        axis = PARAMETERS[dim]
        size, shards = sizes[dim], mesh_shape[axis]
        if size % shards:
            fitting = [n for n in range(2, min(size, 64) + 1) if size % n == 0]
            raise UserError(
                f"mesh.{axis}={shards} does not divide {dim}={size}, the model's {what}; "
                f"take 1 or one of {', '.join(map(str, fitting))}"
            )


def local_size(dims: str, shape: tuple[int, ...]) -> int:
    """Count the elements of an activation that a device of the ambient mesh holds."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return math.prod(shape)
    partition = spec(dims, shape, mesh.shape, ACTIVATIONS)
    return math.prod(jax.sharding.NamedSharding(mesh, partition).shard_shape(shape))


def constrain(x: jax.Array, dims: str, table=ACTIVATIONS) -> jax.Array:
    """Constrain an array to its layout on the ambient mesh; without a mesh, do nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(dims, x.shape, mesh.shape, table))


def on_devices(function, inputs: tuple[str, ...], outputs: tuple[str, ...], *arrays):
    """Call a function on each device's own parts of some activations (`jax.shard_map`).

    Args:
      function: takes arrays of any size along the dimensions that the mesh splits, and returns a
        tuple of arrays.
      inputs: dimension letters of each array that it takes.
      outputs: dimension letters of each array that it returns.
      arrays: its arguments.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)

    def specs(dims, tree):
        return tuple(
            spec(names, x.shape, mesh.shape, ACTIVATIONS)
            for names, x in zip(dims, tree, strict=True)
        )

    in_specs, out_specs = specs(inputs, arrays), specs(outputs, jax.eval_shape(function, *arrays))
    return shard_map(function, in_specs, out_specs)(*arrays)


def attention_specs(query_BTNH, key_BTKH):
    """Choose partitions: of (query, key, value, mask), of any [B, T, N, H], of any [B, N, ...].

    The query heads of a group stay with their key-value head: heads are split where both numbers
    allow it.
    """
    mesh_shape = jax.sharding.get_abstract_mesh().shape
    if not mesh_shape:
        return (PartitionSpec(),) * 4, PartitionSpec(), PartitionSpec()
    rows, heads, (kv_heads,) = (
        *spec("BN", query_BTNH.shape[::2], mesh_shape, ACTIVATIONS),
        spec("K", key_BTKH.shape[2:3], mesh_shape, ACTIVATIONS),
    )
    heads = heads and kv_heads
    tokens, mask = PartitionSpec(rows, None, heads), PartitionSpec(rows)
    return (tokens, tokens, tokens, mask), tokens, PartitionSpec(rows, heads)


def shard_map(function, inputs, outputs):
    """Apply a function to each device's own parts, since XLA does not split kernels.

    Args:
      function: of arrays of any size along the dimensions that are split.
      inputs: partitions of what it takes.
      outputs: partitions of what it returns.
    """
    if jax.sharding.get_abstract_mesh().size <= 1:
        return function
    return jax.shard_map(function, in_specs=inputs, out_specs=outputs, check_vma=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def gather(dims: str, x: jax.Array) -> jax.Array:
    """Gather the shards of a weight over `fsdp`, as layers compute with it.

    Without it, the partitioner may move the activations instead, which are larger. The gradient is
    scattered back to the shards.
    """
    # By the table of activations, in which D is whole and heads, F and V are split as in weights.
    return constrain(x, dims)


def _gather_forward(dims, x):
    return gather(dims, x), None


def _gather_backward(dims, _, grad):
    return (constrain(grad, dims, PARAMETERS),)


gather.defvjp(_gather_forward, _gather_backward)
