"""Rounding of float32 weights to bfloat16 by a threshold of each weight's own, between 0 and 1.

Published weights are bfloat16 numbers, and a step of 2e-5 is less than half the distance to the
next one. Rounded to the nearest, such a step is lost until others have followed in the same
direction: training starts late, and a model that was trained in float32 is scored as if it were
hardly trained. With uniform thresholds (dithering: Roberts 1962) the weights of a matrix change by
their steps on average, and what is a bfloat16 number stays itself.

A threshold depends on the parameter and the place in it alone. So training, probes and evaluation
round the same weights alike, on any mesh, and weights that two models share are the same in both.
"""

from __future__ import annotations

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

# Bits that a float32 has and a bfloat16 has not.
LOST = 16
# Odd numbers with bits in no order (of MurmurHash3 and xxHash), one for each axis of an array.
SPREAD = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1], np.uint32)


def astype(
    x: jax.Array, dtype: jnp.dtype, name: str, layer: int | jax.Array | None = None
) -> jax.Array:
    """Cast a parameter, by thresholds if it is float32 and becomes bfloat16.

    Args:
      x: the parameter, or one of its stacked layers without their axis.
      dtype: the type to cast it to.
      name: of the parameter, which tells its thresholds from those of others.
      layer: the index of that layer; None: it is the whole parameter.
    """
    if (x.dtype, dtype) != (jnp.float32, jnp.bfloat16):
        return x.astype(dtype)
    salt = np.uint32(zlib.crc32(name.encode()))
    if layer is None:
        return _round(x, salt)
    # As if the axis of layers, which comes first, were there.
    return _round(x[None], salt + jnp.uint32(layer) * SPREAD[0])[0]


@jax.custom_jvp
def _dithered(x: jax.Array, salt: jax.Array) -> jax.Array:
    """Round to bfloat16 by the thresholds of a salt."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    # Carries into the bits that are kept if what is lost and the threshold exceed 1; away from
    # zero, whatever the sign.
    above = bits + (_hash(x.shape, salt) >> LOST)
    kept = jax.lax.bitcast_convert_type(above & np.uint32(-(1 << LOST) % (1 << 32)), jnp.float32)
    return jnp.where(jnp.isfinite(x), kept, x).astype(jnp.bfloat16)


@_dithered.defjvp
def _gradient(primals, tangents):
    """Differentiate rounding as if it were none."""
    return _dithered(*primals), tangents[0].astype(jnp.bfloat16)


_round = jax.jit(_dithered)


def _hash(shape: tuple[int, ...], salt: jax.Array) -> jax.Array:
    """Hash the place of every element with a salt: 32 bits each, by MurmurHash3's last mix."""
    places = (
        jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * SPREAD[axis % len(SPREAD)]
        for axis in range(len(shape))
    )
    h = functools.reduce(jnp.add, places, jnp.broadcast_to(salt, shape))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> shift)) * np.uint32(factor)
    return h
