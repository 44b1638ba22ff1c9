"""Which mesh axis each dimension letter lies on: one table for weights, one for activations."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec

from jft.errors import UserError

# Letters: B rows, T tokens, D embedding, N heads, K key-value heads, H head size, F feed-forward,
# V vocabulary, L layers, M loss entries. A letter that is not listed is not split.
PARAMETERS = {"D": "fsdp", "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor"}
ACTIVATIONS = {"B": ("data", "fsdp"), "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor"}
# Of tokens that were looked up: each device has its part of the embedding of its group's tokens, so
# that these move, not the table.
LOOKED_UP = {"B": "data", "D": "fsdp"}
# Dimensions that a mesh has to divide; of the others it splits those that it divides: three
# key-value heads on two tensor shards are kept by both, and so is an odd vocabulary.
DIVIDED = {"D": "embedding", "N": "heads", "F": "feed-forward"}


def spec(dims: str, shape: tuple[int, ...], mesh_shape, table) -> PartitionSpec:
    """The partition of an array whose dimensions the letters name.

    A dimension that its mesh axes do not divide stays whole; `check` says which may.

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


def check(sizes: dict[str, int], mesh_shape: Mapping[str, int]) -> None:
    """See that a mesh divides what it has to.

    Args:
      sizes: of each letter of `DIVIDED`, for a model.
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
    """Elements of an activation that a device of the ambient mesh holds."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return math.prod(shape)
    partition = spec(dims, shape, mesh.shape, ACTIVATIONS)
    return math.prod(jax.sharding.NamedSharding(mesh, partition).shard_shape(shape))


def constrain(x: jax.Array, dims: str, table=ACTIVATIONS) -> jax.Array:
    """Pin an array to its layout on the ambient mesh; without a mesh, do nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(dims, x.shape, mesh.shape, table))


def on_devices(function, inputs: tuple[str, ...], outputs: tuple[str, ...], *arrays):
    """A function of activations, of which each device computes its own part from its own parts.

    Args:
      function: of arrays of any size along the dimensions that the mesh splits.
      inputs: letters of the arrays.
      outputs: letters of its results.
      arrays: what it is called with.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*arrays)

    def specs(dims, tree):
        return tuple(
            spec(names, x.shape, mesh.shape, ACTIVATIONS)
            for names, x in zip(dims, tree, strict=True)
        )

    places = specs(inputs, arrays), specs(outputs, jax.eval_shape(function, *arrays))
    return jax.shard_map(function, in_specs=places[0], out_specs=places[1], check_vma=False)(
        *arrays
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def gather(dims: str, x: jax.Array) -> jax.Array:
    """A weight as layers compute with it: its shards over `fsdp` put together.

    Left alone, the partitioner may move the activations instead, which are larger. The slope goes
    back to where the weight is kept.
    """
    return constrain(x, dims)


def _gather_forward(dims, x):
    return gather(dims, x), None


def _gather_backward(dims, _, slope):
    return (constrain(slope, dims, PARAMETERS),)


gather.defvjp(_gather_forward, _gather_backward)
