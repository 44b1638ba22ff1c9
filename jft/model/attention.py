"""Attention under the mask rule of prefix trees."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def visible(visible_until_BT: jax.Array) -> jax.Array:
    """The mask rule: [B, T, T] booleans, query by key, `k <= q < visible_until[k]`."""
    index_T = jnp.arange(visible_until_BT.shape[1])
    query_1T1, key_11T = index_T[None, :, None], index_T[None, None, :]
    return (key_11T <= query_1T1) & (query_1T1 < visible_until_BT[:, None, :])


# The T x T weights are cheap to compute again and expensive to keep for every layer.
@jax.checkpoint
def attend(
    query_BTNH: jax.Array, key_BTKH: jax.Array, value_BTKH: jax.Array, visible_BTT: jax.Array
) -> jax.Array:
    """Grouped-query attention, softmax in float32, scaled by the root of H: [B, T, N, H]."""
    return jax.nn.dot_product_attention(
        query_BTNH, key_BTKH, value_BTKH, mask=visible_BTT[:, None], implementation="xla"
    )
