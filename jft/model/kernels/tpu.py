"""Attention kernels for TPUs: each step of the grid computes one pair of blocks.

The lists of pairs lie in scalar memory, so that the blocks of a step are loaded while the step
before is computed. Vectors with one number for each query or key lie along the lanes, [1, T], where
they take the least memory. A kernel that needs one as a column, [X, 1], transposes it once for all
pairs of a block. Arguments of the kernels are in the order of the array names in `forward`,
`backward_query` and `backward_key`; scratch comes last.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jft.model.kernels import blocks
from jft.model.kernels.blocks import BlockPairs, Marks, Static

LARGEST_HEAD = 256
# Tokens of a block. Small blocks pay more for the overhead of a grid step; of large ones, more of
# the products are of queries with keys that they do not see.
SIZES = (128, 256, 512)
# The sides of a pair: their places in `BlockPairs`.
OUTER, INNER = 0, 1
# The marks that a kernel needs as columns where its outer blocks are queries, or keys.
OF_QUERIES, OF_KEYS = ("first",), ("until", "position")


class Tuning(NamedTuple):
    """The tokens of a block."""

    block: int


def tuning(length: int, head_size: int, dtype: jnp.dtype) -> Tuning:
    """Choose the sizes for rows of `length` tokens."""
    del head_size, dtype
    return Tuning(next((size for size in SIZES if length <= 8 * size), SIZES[-1]))


def padded_head(head_size: int) -> int:
    """Return the head size that the kernels take: any."""
    return head_size


def forward(marks_B1T: Marks, inputs, by_query: BlockPairs, static: Static):
    """Compute out_BNTH and lse_BN1T from (query_BNTH, key_BKTH, value_BKTH)."""
    query_BNTH, key_BKTH, _ = inputs
    grid = _Grid(query_BNTH, key_BKTH, by_query, members=1)
    query, key, vector = grid.query(OUTER), grid.key(INNER), grid.vector(OUTER)
    return grid.call(
        functools.partial(_forward, scores=static.scores),
        (marks_B1T, *inputs),
        (grid.marks(marks_B1T, queries=OUTER), query, key, key),
        (query, vector),
        (query_BNTH, jax.ShapeDtypeStruct(grid.vector_shape, jnp.float32)),
        (grid.columns(marks_B1T, OF_QUERIES), grid.column, grid.column, grid.block),
        static.interpret,
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
    grid = _Grid(query_BNTH, key_BKTH, by_query, members=1)
    query, key, vector = grid.query(OUTER), grid.key(INNER), grid.vector(OUTER)
    return grid.call(
        functools.partial(_backward_query, scores=static.scores),
        (marks_B1T, *inputs),
        (grid.marks(marks_B1T, queries=OUTER), query, key, key, query, vector, vector),
        (query,),
        (query_BNTH,),
        (grid.columns(marks_B1T, OF_QUERIES), grid.column, grid.column, grid.block),
        static.interpret,
    )[0]


def backward_key(marks_B1T: Marks, inputs, by_key: BlockPairs, static: Static):
    """Compute d_key_BKTH and d_value_BKTH from the inputs of `backward_query`."""
    query_BNTH, key_BKTH, *_ = inputs
    group = query_BNTH.shape[1] // key_BKTH.shape[1]
    grid = _Grid(query_BNTH, key_BKTH, by_key, group)
    query, key, vector = grid.query(INNER), grid.key(OUTER), grid.vector(INNER)
    return grid.call(
        functools.partial(_backward_key, scores=static.scores),
        (marks_B1T, *inputs),
        (grid.marks(marks_B1T, queries=INNER), query, key, key, query, vector, vector),
        (key, key),
        (key_BKTH, key_BKTH),
        (grid.columns(marks_B1T, OF_KEYS), grid.block, grid.block),
        static.interpret,
    )


class _Grid:
    """The grid of a kernel: (row b, head h, pair z, member g of the head).

    Where a kernel writes queries, h counts query heads and G = 1. Where it writes keys, h counts
    key-value heads, and the G query heads of each are computed one after the other.

    Index maps take (b, h, z, g, *pairs) and return which block of the array a step gets, in units
    of the block's shape; None squeezes an axis of size 1. `pairs` are the lists of `BlockPairs`.
    """

    def __init__(self, query_BNTH, key_BKTH, pairs: BlockPairs, members: int):
        rows, heads, length, head = query_BNTH.shape
        self.pairs, self.members, self.head = pairs, members, head
        self.size = length // (pairs.start_BQ.shape[1] - 1)
        self.group = heads // key_BKTH.shape[1]
        # The number of pairs is data: the longest list of these rows, not the room for lists.
        self.grid = (rows, heads // members, pairs.start_BQ[:, -1].max(), members)
        self.vector_shape = (rows, heads, 1, length)
        self.column = pltpu.VMEM((self.size, 1), jnp.float32)
        self.block = pltpu.VMEM((self.size, head), jnp.float32)

    def query(self, side: int) -> pl.BlockSpec:
        """Take a block of queries [X, H], of an array [B, N, T, H], at that side of the pair."""
        return pl.BlockSpec(
            (None, None, self.size, self.head),
            lambda b, h, z, g, *pairs: (b, h * self.members + g, pairs[side][b, z], 0),
        )

    def key(self, side: int) -> pl.BlockSpec:
        """Take a block of keys [Y, H], of an array [B, K, T, H], at that side of the pair."""
        return pl.BlockSpec(
            (None, None, self.size, self.head),
            lambda b, h, z, g, *pairs: (
                b,
                jax.lax.div(h * self.members, self.group),
                pairs[side][b, z],
                0,
            ),
        )

    def vector(self, side: int) -> pl.BlockSpec:
        """Take a number for each query of a block, [1, X], of an array [B, N, 1, T]."""
        return pl.BlockSpec(
            (None, None, 1, self.size),
            lambda b, h, z, g, *pairs: (b, h * self.members + g, 0, pairs[side][b, z]),
        )

    def marks(self, marks_B1T: Marks, queries: int) -> Marks:
        """Take the marks of a pair, [1, X] and [1, Y]; `queries` is the side of the queries."""

        def at(side):
            return pl.BlockSpec(
                (None, 1, self.size), lambda b, h, z, g, *pairs: (b, 0, pairs[side][b, z])
            )

        keys = OUTER + INNER - queries
        sides = zip(marks_B1T, Marks(keys, keys, queries), strict=True)
        return Marks(*(None if mark is None else at(side) for mark, side in sides))

    def columns(self, marks_B1T: Marks, names: tuple[str, ...]) -> dict[str, Any]:
        """Make room for the marks of an outer block as columns, as far as there are any."""
        there = [name for name in names if getattr(marks_B1T, name) is not None]
        return {name: pltpu.VMEM((self.size, 1), jnp.int32) for name in there}

    def call(self, kernel, arrays, inputs, outputs, like, scratch, interpret):
        """Run a kernel; profiles show it as `attention_forward`, `attention_backward_query`, ..."""
        return pl.pallas_call(
            kernel,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=len(self.pairs),
                grid=self.grid,
                in_specs=inputs,
                out_specs=outputs,
                scratch_shapes=scratch,
            ),
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like],
            # Rows and heads are independent. The pairs of an outer block, and the members of a
            # head, add to the same scratch, so their steps run in order.
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary")
            ),
            interpret=interpret,
            name=f"attention{kernel.func.__name__}",
        )(*self.pairs, *arrays)


class _GridStep(NamedTuple):
    """The pair of blocks that a step of the grid computes.

    Attributes:
      outer, inner: the blocks, as in `BlockPairs`.
      first, last: whether it is the first and the last step for the outer block.
      in_list: false past the end of a row's list, where another row's is longer.
      masked: false where every query sees every key.
    """

    outer: jax.Array
    inner: jax.Array
    first: jax.Array
    last: jax.Array
    in_list: jax.Array
    masked: jax.Array


def _grid_step(outer_BZ, inner_BZ, start_BQ, mask_BQ) -> _GridStep:
    b, z, g = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    outer, members = outer_BZ[b, z], pl.num_programs(3)
    return _GridStep(
        outer,
        inner_BZ[b, z],
        first=(z == start_BQ[b, outer]) & (g == 0),
        last=(z + 1 == start_BQ[b, outer + 1]) & (g == members - 1),
        in_list=z < start_BQ[b, start_BQ.shape[1] - 1],
        masked=z >= mask_BQ[b, outer],
    )


def _transpose(marks: Marks, columns: dict) -> None:
    """Turn the marks of an outer block into columns."""
    for name, column in columns.items():
        column[...] = getattr(marks, name)[...].T


def _compute_pair(
    step: _GridStep, marks: Marks, columns: dict, size: int, query_axis: int, compute: Callable
) -> None:
    """Call `compute` with what is visible of the pair of a step; None: all of it is.

    It is [X, Y], or [Y, X] where queries are axis 1.
    """

    @pl.when(step.in_list & step.masked)
    def _():
        rows = {name: mark for name, mark in marks._asdict().items() if mark is not None}
        loaded = {name: ref[...] for name, ref in (rows | columns).items()}
        pair = (step.outer, step.inner) if query_axis == 0 else (step.inner, step.outer)
        compute(blocks.visible(Marks(**loaded), *pair, size, query_axis))

    @pl.when(step.in_list & ~step.masked)
    def _():
        compute(None)


def _forward(*refs, scores):
    marks, query, key, value, out, lse, columns, max_score, sum_exp, sums = refs[4:]
    step, size = _grid_step(*refs[:4]), query.shape[0]

    @pl.when(step.first)
    def _():
        _transpose(marks, columns)
        state = blocks.init_state(*query.shape)
        for ref, x in zip((max_score, sum_exp, sums), state, strict=True):
            ref[...] = x

    def compute(visible):
        score = blocks.masked_scores(scores, query[...], key[...], visible)
        state = blocks.SoftmaxState(max_score[...], sum_exp[...], sums[...])
        state = blocks.update_state(state, score, value[...])
        max_score[...], sum_exp[...], sums[...] = state

    _compute_pair(step, marks, columns, size, 0, compute)

    @pl.when(step.last)
    def _():
        state = blocks.SoftmaxState(max_score[...], sum_exp[...], sums[...])
        out_XH, lse_X1 = blocks.finish(state)
        out[...] = out_XH.astype(out.dtype)
        lse[...] = lse_X1.T


def _backward_query(*refs, scores):
    marks, query, key, value, d_out, lse, delta, d_query, columns, lse_X1, delta_X1, sums = refs[4:]
    step, size = _grid_step(*refs[:4]), query.shape[0]

    @pl.when(step.first)
    def _():
        _transpose(marks, columns)
        lse_X1[...], delta_X1[...] = lse[...].T, delta[...].T
        sums[...] = jnp.zeros_like(sums)

    def compute(visible):
        score = blocks.masked_scores(scores, query[...], key[...], visible)
        d_weight = blocks.dot(d_out[...], value[...], (1, 1))
        _, d_score = blocks.score_gradients(scores, score, lse_X1[...], d_weight, delta_X1[...])
        sums[...] += blocks.dot(d_score, key[...], (1, 0))

    _compute_pair(step, marks, columns, size, 0, compute)

    @pl.when(step.last)
    def _():
        d_query[...] = sums[...].astype(d_query.dtype)


def _backward_key(*refs, scores):
    marks, query, key, value, d_out, lse, delta, d_key, d_value, *scratch = refs[4:]
    columns, key_sums, value_sums = scratch
    step, size = _grid_step(*refs[:4]), key.shape[0]

    @pl.when(step.first)
    def _():
        _transpose(marks, columns)
        key_sums[...], value_sums[...] = jnp.zeros_like(key_sums), jnp.zeros_like(value_sums)

    def compute(visible):
        # Scores are [Y, X] here, so that no product transposes them.
        score = blocks.masked_scores(scores, key[...], query[...], visible)
        d_weight = blocks.dot(value[...], d_out[...], (1, 1))
        weight, d_score = blocks.score_gradients(scores, score, lse[...], d_weight, delta[...])
        key_sums[...] += blocks.dot(d_score, query[...], (1, 0))
        value_sums[...] += blocks.dot(weight, d_out[...], (1, 0))

    _compute_pair(step, marks, columns, size, 1, compute)

    @pl.when(step.last)
    def _():
        d_key[...] = key_sums[...].astype(d_key.dtype)
        d_value[...] = value_sums[...].astype(d_value.dtype)
