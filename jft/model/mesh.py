"""Devices in a (data, fsdp, tensor) mesh, the shardings of arrays on it, and placing them there."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jft import config as config_lib
from jft.errors import UserError
from jft.model import decoder, dither, sharding

AXES = ("data", "fsdp", "tensor")
Tree = TypeVar("Tree")


def make_mesh(config: config_lib.Mesh, devices: list[jax.Device] | None = None) -> Mesh:
    """Lay devices out as the config says; by default all devices of all processes.

    Raises:
      UserError: sizes that do not multiply to the number of devices.
    """
    devices = devices or jax.devices()
    sizes = [getattr(config, axis) for axis in AXES]
    text = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if 0 in sizes or sizes.count(-1) > 1:
        raise UserError(f"{text}: sizes are at least 1, and one of them may be -1")
    known = math.prod(size for size in sizes if size > 0)
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        remedy = "change one" if -1 in sizes else "give one as -1"
        raise UserError(
            f"{text}: {known} does not make up the {len(devices)} devices there are; {remedy}"
        )
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    # Neighbours in the mesh are neighbours in the machine, where JAX knows its network.
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)


def row_shards(mesh: Mesh) -> int:
    """Count the shards that the rows of a batch are split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def one_per_device(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array with one element for each device."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def check_model(mesh: Mesh, config: decoder.DecoderConfig) -> None:
    """Check that a mesh can split a model.

    Raises:
      UserError: a size of the model that the mesh does not divide.
    """
    sharding.check_mesh({dim: config.size(dim) for dim in "DNKFV"}, mesh.shape)


def param_shardings(mesh: Mesh, config: decoder.DecoderConfig) -> decoder.Params:
    """Return the sharding of every parameter, structured as `decoder.init`.

    Raises:
      UserError: a size of the model that the mesh does not divide.
    """
    check_model(mesh, config)
    return jax.tree.map(
        lambda dims, shape: NamedSharding(
            mesh, sharding.spec(dims, shape.shape, mesh.shape, sharding.PARAMETERS)
        ),
        decoder.dims(config),
        decoder.shapes(config),
    )


def row_sharding(mesh: Mesh, leading: int) -> NamedSharding:
    """Return the sharding of a batch's arrays: the rows split, after `leading` axes kept whole."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, ("data", "fsdp")))


def put_by_layer(
    name: str, dims: str, source, layout: NamedSharding, dtype: jnp.dtype, rounded: bool
) -> jax.Array:
    """Read a parameter onto devices. Of stacked layers, the host holds one at a time.

    Args:
      name: of the parameter.
      dims: letters of its dimensions; the first is L if layers are stacked.
      source: a NumPy array, or an object with `shape`, `astype` and slices like one.
      layout: the sharding to place it with.
      dtype: the type to cast it to.
      rounded: whether its numbers have this type, or fewer bits, so that none are lost.
    """
    read_as = dtype if rounded else jnp.dtype("float32")
    if not dims.startswith("L"):
        return dither.astype(_put_part(source, (), layout, read_as), dtype, name)
    mesh, spec = layout.mesh, layout.spec
    layer_layout = NamedSharding(mesh, PartitionSpec(*spec[1:]))
    zeros, set_layer = _by_layer(layout)
    array = zeros(source.shape, dtype)
    for i in range(source.shape[0]):
        part = _put_part(source, (slice(i, i + 1),), layer_layout, read_as)
        part = dither.astype(part, dtype, name, i)
        # Wait: the host would read layers faster than devices take them, and hold them all.
        array = jax.block_until_ready(set_layer(array, part, np.int32(i)))
    return array


def _put_part(source, first: tuple[slice, ...], layout: NamedSharding, dtype) -> jax.Array:
    """Place `source[first]` without the leading axes, which `first` slices to size 1."""

    def read(index):
        part = source.astype(dtype, copy=False)[first + index]
        return part.reshape(part.shape[len(first) :])

    return jax.make_array_from_callback(source.shape[len(first) :], layout, read)


@functools.lru_cache
def _by_layer(layout: NamedSharding) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """Compile programs that make a stacked array of zeros, and that set one layer in place."""
    zeros = jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=layout)
    set_layer = jax.jit(
        lambda array, part, i: jax.lax.dynamic_update_index_in_dim(array, part, i, 0),
        out_shardings=layout,
        donate_argnums=0,
    )
    return zeros, set_layer


def put_shards(build: Callable[[int], Tree], layout: NamedSharding, shards: int) -> Tree:
    """Place a batch of which each process builds only the rows of its own devices.

    Args:
      build: returns the arrays of one shard of the rows, [A, B / shards, ...].
      layout: `row_sharding(mesh, leading=1)`.
      shards: the number of shards, `row_shards(mesh)`.
    """
    order = layout.addressable_devices_indices_map((1, shards))
    places = {device: index[1].start or 0 for device, index in order.items() if index}
    parts = {shard: build(shard) for shard in sorted(set(places.values()))}

    # All arrays of a device in one transfer: they are small, so that each costs its start.
    placed = [jax.device_put(parts[shard], device) for device, shard in places.items()]

    def one(*of_devices):
        micro_batches, rows, *rest = of_devices[0].shape
        shape = (micro_batches, rows * shards, *rest)
        return jax.make_array_from_single_device_arrays(shape, layout, list(of_devices))

    return jax.tree.map(one, *placed)


def put(tree: Tree, layout: NamedSharding) -> Tree:
    """Place arrays that every process holds whole: each sends its devices their parts."""
    if jax.process_count() == 1:
        return jax.device_put(tree, layout)  # in one transfer

    def one(array):
        return jax.make_array_from_callback(array.shape, layout, lambda index: array[index])

    return jax.tree.map(one, tree)
