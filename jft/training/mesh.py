"""Devices in a (data, fsdp, tensor) mesh, and where arrays lie on it."""

from __future__ import annotations

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jft import config as config_lib
from jft.errors import UserError
from jft.model import decoder, sharding

AXES = ("data", "fsdp", "tensor")


def create(config: config_lib.Mesh) -> Mesh:
    """All devices, as the config lays them out.

    Raises:
      UserError: sizes that do not multiply to the number of devices.
    """
    devices = jax.devices()
    sizes = [getattr(config, axis) for axis in AXES]
    text = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if 0 in sizes or sizes.count(-1) > 1:
        raise UserError(f"{text}: sizes are at least 1, and one of them may be -1")
    known = math.prod(size for size in sizes if size > 0)
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise UserError(
            f"{text}: {known} does not make up the {len(devices)} devices there are; give one as -1"
        )
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    return Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def row_shards(mesh: Mesh) -> int:
    """How many devices share the rows of a batch."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device, whole."""
    return NamedSharding(mesh, PartitionSpec())


def parameters(mesh: Mesh, config: decoder.DecoderConfig) -> decoder.Params:
    """The sharding of every parameter."""
    return jax.tree.map(
        lambda letters, shape: NamedSharding(
            mesh, sharding.spec(letters, shape.shape, mesh.shape, sharding.PARAMETERS)
        ),
        decoder.letters(config),
        decoder.shapes(config),
    )


def rows(mesh: Mesh, leading: int) -> NamedSharding:
    """Of a batch's arrays: the rows split, after `leading` whole axes."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, ("data", "fsdp")))
