"""Rotary position embeddings (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jft.model.architecture import DecoderConfig


def rotary(config: DecoderConfig, positions_BT: jax.Array) -> jax.Array:
    """Compute sine and cosine of the rotary angles, [2, B, T, H / 2] in float32."""
    exponent = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    # Rounded from float64: NumPy's float32 power differs between processors, and at position p the
    # error of an angle is p times that of its frequency.
    frequency = 1 / np.power(config.rope_theta, exponent.astype(np.float64)).astype(np.float32)
    if config.rope_factors:
        frequency = frequency / np.asarray(config.rope_factors, np.float32)
    angle_BTH = positions_BT[:, :, None].astype(jnp.float32) * frequency[None, None]
    return jnp.stack([jnp.sin(angle_BTH), jnp.cos(angle_BTH)])


def rotate(x_BTNH: jax.Array, rope_2BTH: jax.Array) -> jax.Array:
    """Rotate the pairs (x[i], x[i + H / 2]) of every head by the angles, in float32."""
    sin, cos = rope_2BTH[:, :, :, None]
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTNH.dtype)
