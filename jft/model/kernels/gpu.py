"""Attention kernels for GPUs, compiled by Triton.

Each program has one block of queries, or of keys, and loops over its pairs. Arguments of the
kernels are in the order of the array names in `forward`, `backward_query` and `backward_key`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jft.model.kernels import blocks
from jft.model.kernels.blocks import BlockPairs, Marks, Static

# The backward pass of larger heads has too few registers.
LARGEST_HEAD = 256
# The smallest inner dimension of a product in Triton.
SMALLEST_HEAD = 16


class Tuning(NamedTuple):
    """Sizes by which the kernels are fitted to a GPU.

    Attributes:
      block: tokens of a block.
      warps: warps of a program.
      stages: blocks of keys that are loaded ahead, and the one that is computed.
    """

    block: int
    warps: int
    stages: int = 2


# By bytes of a number and the largest head: those of which the compiled kernels, for an H100, keep
# in registers what they compute. A tensor core multiplies 64 rows of 16 bits, which four warps
# share; float32 is multiplied without it.
TUNINGS = {
    (2, 128): Tuning(block=64, warps=4),
    (2, LARGEST_HEAD): Tuning(block=64, warps=8),
    (4, LARGEST_HEAD): Tuning(block=32, warps=8),
}


def tuning(length: int, head_size: int, dtype: jnp.dtype) -> Tuning:
    """Choose the sizes for rows of `length` tokens, a head size and a type."""
    del length
    return next(
        found
        for (itemsize, largest), found in TUNINGS.items()
        if dtype.itemsize <= itemsize and head_size <= largest
    )


def padded_head(head_size: int) -> int:
    """Return the head size that the kernels take: Triton wants all sizes to be powers of two."""
    return max(SMALLEST_HEAD, 1 << (head_size - 1).bit_length())


def forward(marks_B1T: Marks, inputs, by_query: BlockPairs, static: Static):
    """Compute out_BNTH and lse_BN1T from (query_BNTH, key_BKTH, value_BKTH)."""
    query_BNTH, key_BKTH, _ = inputs
    rows, heads, length, head = query_BNTH.shape
    group = heads // key_BKTH.shape[1]
    query, key, vector = (
        _own_block(head, static),
        _whole_row(length, head, group),
        _own_vector(static),
    )
    return _call(
        functools.partial(_forward, static=static),
        (by_query, marks_B1T, *inputs),
        (query, key, key),
        (query, vector),
        (query_BNTH, jax.ShapeDtypeStruct((rows, heads, 1, length), jnp.float32)),
        (length // static.tuning.block, heads, rows),
        static,
    )


def backward_query(marks_B1T: Marks, inputs, by_query: BlockPairs, static: Static):
    """Compute d_query_BNTH.

    Args:
      marks_B1T: of the rows.
      inputs: query_BNTH, key_BKTH, value_BKTH, d_out_BNTH, lse_BN1T, delta_BN1T.
      by_query: the pairs of the batch.
      static: what they are compiled for.
    """
    query_BNTH, key_BKTH, *_ = inputs
    rows, heads, length, head = query_BNTH.shape
    group = heads // key_BKTH.shape[1]
    query, key, vector = (
        _own_block(head, static),
        _whole_row(length, head, group),
        _own_vector(static),
    )
    return _call(
        functools.partial(_backward_query, static=static),
        (by_query, marks_B1T, *inputs),
        (query, key, key, query, vector, vector),
        (query,),
        (query_BNTH,),
        (length // static.tuning.block, heads, rows),
        static,
    )[0]


def backward_key(marks_B1T: Marks, inputs, by_key: BlockPairs, static: Static):
    """Compute d_key_BKTH and d_value_BKTH from the inputs of `backward_query`."""
    query_BNTH, key_BKTH, *_ = inputs
    rows, heads, length, head = query_BNTH.shape
    kv_heads = key_BKTH.shape[1]
    group = heads // kv_heads
    # A program sums over all query heads of its key-value head: it gets them as [G, T, H], [G, T].
    queries = pl.BlockSpec((None, group, length, head), lambda q, h, b: (b, h, 0, 0))
    vectors = pl.BlockSpec((None, group, None, length), lambda q, h, b: (b, h, 0, 0))
    key = _own_block(head, static)
    return _call(
        functools.partial(_backward_key, static=static),
        (by_key, marks_B1T, *inputs),
        (queries, key, key, queries, vectors, vectors),
        (key, key),
        (key_BKTH, key_BKTH),
        (length // static.tuning.block, kv_heads, rows),
        static,
    )


# The grid has a program for each block q (of queries; in `backward_key` of keys), head h (a query
# head; there a key-value head) and row b. Index maps take (q, h, b) and return which block of the
# array the program gets, in units of the block's shape; None squeezes an axis of size 1.


def _own_block(head: int, static: Static) -> pl.BlockSpec:
    """Take the program's block of tokens, [X, H]."""
    return pl.BlockSpec((None, None, static.tuning.block, head), lambda q, h, b: (b, h, q, 0))


def _own_vector(static: Static) -> pl.BlockSpec:
    """Take a number for each token of the program's block, [X]."""
    return pl.BlockSpec((None, None, None, static.tuning.block), lambda q, h, b: (b, h, 0, q))


def _whole_row(length: int, head: int, group: int) -> pl.BlockSpec:
    """Take the keys of a row, [T, H], for a query head; the kernel loads its pairs' blocks only."""
    return pl.BlockSpec((None, None, length, head), lambda q, h, b: (b, h // group, 0, 0))


def _of_row(x) -> pl.BlockSpec:
    """Take what belongs to a row, of an array [B, ...]: its marks, [1, T], or a list of pairs."""
    return pl.BlockSpec((None, *x.shape[1:]), lambda q, h, b: (b, *(0,) * (x.ndim - 1)))


def _call(kernel, arrays, inputs, outputs, like, grid, static: Static):
    """Run a kernel; profiles show it as `attention_forward`, `attention_backward_query`, ...

    It gets `BlockPairs` and `Marks` of the program's row, then the inputs and outputs.
    """
    (pairs, marks), others = arrays[:2], arrays[2:]
    of_row = jax.tree.map(_of_row, (pairs, marks))
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=(*of_row, *inputs),
        out_specs=outputs,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like],
        compiler_params=triton.CompilerParams(
            num_warps=static.tuning.warps, num_stages=static.tuning.stages
        ),
        interpret=static.interpret,
        name=f"attention{kernel.func.__name__}",
    )(pairs, marks, *others)


def _loop_over_pairs(pairs: BlockPairs, pair, carry):
    """Call `pair(inner, masked, carry)` for each pair of the program's block.

    Two loops, so that the mask is computed for those pairs only that need it.
    """
    own = pl.program_id(0)
    start, mask, end = pairs.start_BQ[own], pairs.mask_BQ[own], pairs.start_BQ[own + 1]

    def one(masked, z, carry):
        return pair(pairs.inner_BZ[z], masked, carry)

    carry = jax.lax.fori_loop(start, mask, functools.partial(one, False), carry)
    return jax.lax.fori_loop(mask, end, functools.partial(one, True), carry)


def _tokens(block, size: int):
    """Slice the tokens of a block."""
    return pl.ds(block * size, size)


def _visible(marks: Marks, query_block, key_block, size: int, query_axis: int) -> jax.Array:
    """Apply the mask rule to a pair of blocks: [X, Y], or [Y, X] where queries are axis 1."""

    def of_tokens(mark, block, axis):
        """Load the marks of a block along one axis; None where there are none."""
        return None if mark is None else jnp.expand_dims(mark[0, _tokens(block, size)], 1 - axis)

    loaded = Marks(
        of_tokens(marks.until, key_block, 1 - query_axis),
        of_tokens(marks.position, key_block, 1 - query_axis),
        of_tokens(marks.first, query_block, query_axis),
    )
    return blocks.visible(loaded, query_block, key_block, size, query_axis)


def _forward(pairs, marks, query, key, value, out, lse, *, static: Static):
    own, query_XH, size = pl.program_id(0), query[...], static.tuning.block

    def pair(inner, masked, state):
        keys = _tokens(inner, size)
        visible = _visible(marks, own, inner, size, query_axis=0) if masked else None
        score = blocks.masked_scores(static.scores, query_XH, key[keys], visible)
        return blocks.update_state(blocks.SoftmaxState(*state), score, value[keys])

    state = _loop_over_pairs(pairs, pair, blocks.init_state(*query_XH.shape))
    out_XH, lse_X1 = blocks.finish(state)
    out[...] = out_XH.astype(out.dtype)
    lse[...] = lse_X1.reshape(size)


def _backward_query(pairs, marks, query, key, value, d_out, lse, delta, d_query, *, static: Static):
    own, query_XH, d_out_XH = pl.program_id(0), query[...], d_out[...]
    size = static.tuning.block
    lse_X1, delta_X1 = lse[...][:, None], delta[...][:, None]

    def pair(inner, masked, sum_XH):
        keys = _tokens(inner, size)
        visible = _visible(marks, own, inner, size, query_axis=0) if masked else None
        key_YH = key[keys]
        score = blocks.masked_scores(static.scores, query_XH, key_YH, visible)
        d_weight = blocks.dot(d_out_XH, value[keys], (1, 1))
        _, d_score = blocks.score_gradients(static.scores, score, lse_X1, d_weight, delta_X1)
        return sum_XH + blocks.dot(d_score, key_YH, (1, 0))

    zeros = jnp.zeros(query_XH.shape, jnp.float32)
    d_query[...] = _loop_over_pairs(pairs, pair, zeros).astype(d_query.dtype)


def _backward_key(
    pairs, marks, query, key, value, d_out, lse, delta, d_key, d_value, *, static: Static
):
    own, key_YH, value_YH = pl.program_id(0), key[...], value[...]
    size = static.tuning.block

    def pair(inner, masked, sums):
        queries = _tokens(inner, size)
        visible = _visible(marks, inner, own, size, query_axis=1) if masked else None

        def head(g, sums):
            # Scores are [Y, X] here, so that no product transposes them.
            query_XH, d_out_XH = query[g, queries], d_out[g, queries]
            score = blocks.masked_scores(static.scores, key_YH, query_XH, visible)
            d_weight = blocks.dot(value_YH, d_out_XH, (1, 1))
            vectors = lse[g, queries][None], d_weight, delta[g, queries][None]
            weight, d_score = blocks.score_gradients(static.scores, score, *vectors)
            key_sum_YH = sums[0] + blocks.dot(d_score, query_XH, (1, 0))
            return key_sum_YH, sums[1] + blocks.dot(weight, d_out_XH, (1, 0))

        return jax.lax.fori_loop(0, query.shape[0], head, sums)

    zeros = jnp.zeros(key_YH.shape, jnp.float32)
    key_sum_YH, value_sum_YH = _loop_over_pairs(pairs, pair, (zeros, zeros))
    d_key[...] = key_sum_YH.astype(d_key.dtype)
    d_value[...] = value_sum_YH.astype(d_value.dtype)
