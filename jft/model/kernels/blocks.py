"""Pairs of a block of queries, X, and a block of keys, Y: which to compute, and what of each.

Both blocks have the same size. Softmax and gradients are float32. Scores are multiplied by log2(e),
with their scale, so that the softmax takes powers of two, for which processors have an instruction.
Equations: FlashAttention-2 (Dao 2023, arXiv 2307.08691).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jft.batch import sees
from jft.model.scores import Scores

# The score of a key that the query does not see. It is finite, so that a query may be computed with
# a block of which it sees nothing: what it adds up there is scaled to zero at its first visible
# key, since exp(MASKED - score) is 0. Every query sees itself.
MASKED = -1e30
LOG2_E = math.log2(math.e)


class Inputs(NamedTuple):
    """Facts about attention's inputs that decide what can compute it.

    Attributes:
      head_size: H.
      dtype: of queries, keys and values.
      scores: what becomes of the products of queries and keys.
    """

    head_size: int
    dtype: jnp.dtype
    scores: Scores


class Static(NamedTuple):
    """Facts that a kernel is compiled for, besides shapes.

    Attributes:
      scores: what becomes of the products of queries and keys.
      tuning: of the kernels' module.
      interpret: run the kernel on any device, slowly, for tests.
    """

    scores: Scores
    tuning: Any
    interpret: bool


class BlockPairs(NamedTuple):
    """The pairs of blocks that hold a query and a key which it sees, sorted by one side.

    Of an outer block, those pairs come first of which every query sees every key: they need no
    mask. Example: three blocks, where block 2 sees nothing of block 1. By query, Z = 5:

        outer  0  1  1  2  2      block of queries
        inner  0  0  1  0  2      block of keys
        start  0  1  3  5
        mask   0  2  4            where all of block 0 is seen by blocks 1 and 2

    Attributes:
      outer_BZ: the side by which they are sorted; a shorter list is filled up with its last pair.
      inner_BZ: the other side.
      start_BQ: where the pairs of each outer block begin; the last of Q + 1 is where they end.
      mask_BQ: where those of its pairs begin that need the mask.
    """

    outer_BZ: jax.Array
    inner_BZ: jax.Array
    start_BQ: jax.Array
    mask_BQ: jax.Array


class Marks(NamedTuple):
    """Numbers of the tokens of a row that decide which keys a query sees.

    They are arrays or, in kernels, references to arrays.

    Attributes:
      until: `Batch.visible_until_BT`, of keys.
      position: `Batch.positions_BT`, of keys; None: there is no window.
      first: the first position in the window of each query; None likewise.
    """

    until: Any
    position: Any = None
    first: Any = None

    def see(self, query, key) -> jax.Array:
        """Apply the mask rule to row indices of queries and keys; all broadcast."""
        seen = sees(query, key, self.until)
        return seen if self.position is None else seen & (self.position >= self.first)


def block_pairs(
    marks_BT: Marks, size: int, most: int | None = None
) -> tuple[BlockPairs, BlockPairs]:
    """List the pairs of blocks that have to be computed, by query and by key.

    Args:
      marks_BT: of the tokens of each row, T a multiple of the block size.
      size: tokens of a block.
      most: W + U of `Batch`, the most key blocks that a block of `BLOCK` queries needs; None: all.
        Larger blocks need no more: what a block sees before its own tokens, its first query sees.
    """
    rows, length = marks_BT.until.shape
    num_blocks = length // size

    def by_block(x_BT):
        return x_BT.reshape(rows, num_blocks, size)

    def marks(of_keys, of_queries):
        """Reduce the marks of each block to one, to broadcast as (key, query)."""
        until_BQ1 = of_keys(by_block(marks_BT.until), axis=2)[..., None]
        if marks_BT.position is None:
            return Marks(until_BQ1)
        position_BQ1 = of_keys(by_block(marks_BT.position), axis=2)[..., None]
        return Marks(until_BQ1, position_BQ1, of_queries(by_block(marks_BT.first), axis=2)[:, None])

    # By (key, query). Some query sees some key if the first query sees the first key, with the
    # latest end, and the last position, of a key, and the longest reach of a query. All see all if
    # the last query does with the opposite of these, and no key comes after a query.
    block_Q = jnp.arange(num_blocks)
    begin_Q, query_Q, key_Q1 = block_Q * size, block_Q[None], block_Q[:, None]
    seen_BQQ = marks(jnp.max, jnp.min).see(begin_Q[None, None], begin_Q[None, :, None])
    full_BQQ = marks(jnp.min, jnp.max).see(begin_Q[None, None] + size - 1, begin_Q[None, :, None])
    full_BQQ &= (key_Q1 < query_Q)[None]
    most = min(most or num_blocks, num_blocks)
    listed = sum(min(q + 1, most) for q in range(num_blocks))
    by_key = _sorted_pairs(seen_BQQ, full_BQQ, listed)
    return _sorted_pairs(seen_BQQ.swapaxes(1, 2), full_BQQ.swapaxes(1, 2), listed), by_key


def _sorted_pairs(seen_BQQ: jax.Array, full_BQQ: jax.Array, most: int) -> BlockPairs:
    """List the pairs of which `seen_BQQ` is true, by (outer, not full, inner)."""
    rows, num_blocks, _ = seen_BQQ.shape
    ends_BQ = seen_BQQ.sum(axis=2, dtype=jnp.int32).cumsum(axis=1)
    start_BQ = jnp.pad(ends_BQ, ((0, 0), (1, 0)))
    mask_BQ = start_BQ[:, :-1] + full_BQQ.sum(axis=2, dtype=jnp.int32)
    # A stable sort leaves pairs of the same place in order; those that are not seen come last.
    place_BQQ = 2 * jnp.arange(num_blocks)[None, :, None] + ~full_BQQ
    place_BQQ = jnp.where(seen_BQQ, place_BQQ, 2 * num_blocks)
    order_BZ = jnp.argsort(place_BQQ.reshape(rows, -1), axis=1, stable=True)[:, :most]
    last_BZ = jnp.minimum(jnp.arange(most)[None], start_BQ[:, -1:] - 1)
    pair_BZ = jnp.take_along_axis(order_BZ, last_BZ, axis=1).astype(jnp.int32)
    return BlockPairs(pair_BZ // num_blocks, pair_BZ % num_blocks, start_BQ, mask_BQ)


class SoftmaxState(NamedTuple):
    """Online softmax of a block of queries over the key blocks so far.

    Attributes:
      max_X1: the largest score, times log2(e) as all scores here.
      sum_X1: the sum of 2 ** (score - max).
      out_XH: the sum of the values, weighted by 2 ** (score - max).
    """

    max_X1: jax.Array
    sum_X1: jax.Array
    out_XH: jax.Array


def init_state(size: int, head_size: int) -> SoftmaxState:
    """Make the state before the first block of keys."""
    max_X1, sum_X1 = jnp.full((size, 1), MASKED, jnp.float32), jnp.zeros((size, 1), jnp.float32)
    return SoftmaxState(max_X1, sum_X1, jnp.zeros((size, head_size), jnp.float32))


def update_state(state: SoftmaxState, scores_XY, value_YH) -> SoftmaxState:
    """Add a block of keys."""
    max_X1 = jnp.maximum(state.max_X1, scores_XY.max(axis=1, keepdims=True))
    rescale_X1, weight_XY = jnp.exp2(state.max_X1 - max_X1), jnp.exp2(scores_XY - max_X1)
    sum_X1 = state.sum_X1 * rescale_X1 + weight_XY.sum(axis=1, keepdims=True)
    out_XH = state.out_XH * rescale_X1 + dot(weight_XY, value_YH, (1, 0))
    return SoftmaxState(max_X1, sum_X1, out_XH)


def finish(state: SoftmaxState) -> tuple[jax.Array, jax.Array]:
    """Compute the attention output, [X, H], and the log-sum-exp, times log2(e), [X, 1]."""
    return state.out_XH / state.sum_X1, state.max_X1 + jnp.log2(state.sum_X1)


def visible(marks: Marks, query_block, key_block, size: int, query_axis: int) -> jax.Array:
    """Apply the mask rule to a pair: [X, Y], or [Y, X] where queries are axis 1."""
    shape = (size, size)
    query = query_block * size + jax.lax.broadcasted_iota(jnp.int32, shape, query_axis)
    key = key_block * size + jax.lax.broadcasted_iota(jnp.int32, shape, 1 - query_axis)
    each = (None if mark is None else jnp.broadcast_to(mark, shape) for mark in marks)
    return Marks(*each).see(query, key)


def masked_scores(scores: Scores, a_XH, b_YH, visible: jax.Array | None) -> jax.Array:
    """Compute the scores of queries with keys, [X, Y], or of keys with queries, [Y, X].

    They are multiplied by log2(e). `visible` is None where every query sees every key.
    """
    binary = Scores(scores.scale * LOG2_E, scores.cap * LOG2_E)
    score = binary.of_products(dot(a_XH, b_YH, (1, 1)))
    return score if visible is None else jnp.where(visible, score, MASKED)


def score_gradients(scores: Scores, score, lse, d_weight, delta) -> tuple[jax.Array, jax.Array]:
    """Compute the attention weights again, and the gradient of the products of query and key.

    Args:
      scores: what becomes of the products.
      score: [X, Y] or [Y, X], as the others, or broadcast to it.
      lse: log-sum-exp of each query, as `finish` gives it.
      d_weight: gradient of the weights.
      delta: FlashAttention-2's D, dot(d_out, out) of each query.
    """
    weight = jnp.exp2(score - lse)
    return weight, scores.gradient(weight * (d_weight - delta), score / LOG2_E)


def dot(a, b, axes: tuple[int, int]) -> jax.Array:
    """Contract one axis of each in the type of `b`, with a float32 result.

    Float32 is multiplied exactly: by default, accelerators would round the factors.
    """
    exact = b.dtype == jnp.float32
    return jax.lax.dot_general(
        a.astype(b.dtype),
        b,
        (((axes[0],), (axes[1],)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
