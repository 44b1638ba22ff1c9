"""What a kernel computes of one block of queries, `X`, and one block of keys, `Y`, in float32.

Both blocks have the same size. Equations: FlashAttention-2 (Dao 2023, arXiv 2307.08691).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# The score of a key that the query does not see. It is finite, so that a query may meet a block of
# which it sees nothing: what it takes there is lost to rounding as soon as it sees itself.
NOT_SEEN = -1e30


class Taken(NamedTuple):
    """What the queries of a block have taken from the blocks of keys that they have met.

    Attributes:
      top_X1: the largest score.
      total_X1: the sum of the exponentials, each divided by that of `top_X1`.
      mixed_XH: the sum of the values, weighted so.
    """

    top_X1: jax.Array
    total_X1: jax.Array
    mixed_XH: jax.Array


def nothing(size: int, head: int) -> Taken:
    """Before the first block of keys."""
    top_X1 = jnp.full((size, 1), NOT_SEEN, jnp.float32)
    return Taken(top_X1, jnp.zeros((size, 1), jnp.float32), jnp.zeros((size, head), jnp.float32))


def visible(until, query_block, key_block, size: int, query_axis: int) -> jax.Array:
    """The mask rule, `k <= q < visible_until[k]`, [X, Y], or [Y, X] where queries are axis 1."""
    shape = (size, size)
    query = query_block * size + jax.lax.broadcasted_iota(jnp.int32, shape, query_axis)
    key = key_block * size + jax.lax.broadcasted_iota(jnp.int32, shape, 1 - query_axis)
    return (key <= query) & (query < jnp.broadcast_to(until, shape))


def scores(rows, columns, visible, scale: float) -> jax.Array:
    """Of queries with keys, [X, Y], or of keys with queries, [Y, X]."""
    return jnp.where(visible, product(rows, columns, (1, 1)) * scale, NOT_SEEN)


def take(taken: Taken, scores_XY, value_YH) -> Taken:
    """One block of keys further."""
    top_X1 = jnp.maximum(taken.top_X1, scores_XY.max(axis=1, keepdims=True))
    shrink_X1, weight_XY = jnp.exp(taken.top_X1 - top_X1), jnp.exp(scores_XY - top_X1)
    total_X1 = taken.total_X1 * shrink_X1 + weight_XY.sum(axis=1, keepdims=True)
    mixed_XH = taken.mixed_XH * shrink_X1 + product(weight_XY, value_YH, (1, 0))
    return Taken(top_X1, total_X1, mixed_XH)


def result(taken: Taken) -> tuple[jax.Array, jax.Array]:
    """The mixed values, and the logarithm of the sum of exponentials, [X, 1]."""
    return taken.mixed_XH / taken.total_X1, taken.top_X1 + jnp.log(taken.total_X1)


def slopes(scores, log_total, of_weight, shared, scale: float) -> tuple[jax.Array, jax.Array]:
    """The weights, and the slope of the products of queries with keys.

    Args:
      scores: in either order of the axes, as the others.
      log_total: as `result` gives it.
      of_weight: the slope of the weights.
      shared: what the softmax takes off: the slope of the weights' sum, which stays 1.
      scale: of the scores.
    """
    weight = jnp.exp(scores - log_total)
    return weight, weight * (of_weight - shared) * scale


def product(a, b, axes: tuple[int, int]) -> jax.Array:
    """A float32 product over one axis of each; the first factor is cast to the second's type."""
    exact = b.dtype == jnp.float32
    return jax.lax.dot_general(
        a.astype(b.dtype),
        b,
        (((axes[0],), (axes[1],)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
