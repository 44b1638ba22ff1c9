"""Attention's kernels for TPUs: each turn of the grid is a pair of blocks that meet.

The lists of pairs lie in scalar memory, so the blocks of a turn are loaded while the turn before is
computed. Arrays that have one number for each query or key lie along the lanes, where they
take no more memory than they must; a kernel that needs them down a column turns a block of them
once for all of its pairs.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jft.model.kernels import blocks
from jft.model.kernels.pairs import Pairs

LARGEST_HEAD = 256
# A turn costs something beside its products, which tells in small blocks; in large ones, more of
# the products are of queries with keys that they do not see.
SIZES = (128, 256, 512)
# The sides of a pair: their places in `Pairs`.
OUTER, INNER = 0, 1


def block_size(length: int) -> int:
    """Queries, and keys, of a block in rows of so many tokens."""
    return next((size for size in SIZES if length <= 8 * size), SIZES[-1])


def padded_head(head: int) -> int:
    """The head size that the kernels take."""
    return head


def forward(inputs, by_query: Pairs, scale: float, interpret: bool):
    """The mixed values, [B, N, T, H], and the logarithms of the sums, [B, N, 1, T]."""
    _, query_BNTH, key_BKTH, _ = inputs
    at = _Place(query_BNTH, key_BKTH, by_query, members=1)
    query, key, number = at.query(OUTER), at.key(INNER), at.number(OUTER)
    return at.call(
        functools.partial(_forward, scale=scale),
        inputs,
        (at.until(INNER), query, key, key),
        (query, number),
        (query_BNTH, jax.ShapeDtypeStruct(at.numbers, jnp.float32)),
        (at.column, at.column, at.block),
        interpret,
    )


def backward_query(inputs, by_query: Pairs, scale: float, interpret: bool):
    """The slope of the queries, [B, N, T, H]."""
    _, query_BNTH, key_BKTH, *_ = inputs
    at = _Place(query_BNTH, key_BKTH, by_query, members=1)
    query, key, number = at.query(OUTER), at.key(INNER), at.number(OUTER)
    return at.call(
        functools.partial(_backward_query, scale=scale),
        inputs,
        (at.until(INNER), query, key, key, query, number, number),
        (query,),
        (query_BNTH,),
        (at.column, at.column, at.block),
        interpret,
    )[0]


def backward_key(inputs, by_key: Pairs, scale: float, interpret: bool):
    """The slopes of the keys and of the values, [B, K, T, H] each."""
    _, query_BNTH, key_BKTH, *_ = inputs
    at = _Place(query_BNTH, key_BKTH, by_key, members=query_BNTH.shape[1] // key_BKTH.shape[1])
    query, key, number = at.query(INNER), at.key(OUTER), at.number(INNER)
    return at.call(
        functools.partial(_backward_key, scale=scale),
        inputs,
        (at.until(OUTER), query, key, key, query, number, number),
        (key, key),
        (key_BKTH, key_BKTH),
        (pltpu.VMEM((at.size, 1), jnp.int32), at.block, at.block),
        interpret,
    )


class _Place:
    """The grid of a kernel over pairs: rows, heads, turns, and members of a head's group.

    There is a head of the grid for so many `members` of the queries' heads.
    """

    def __init__(self, query_BNTH, key_BKTH, pairs: Pairs, members: int):
        rows, heads, length, head = query_BNTH.shape
        self.pairs, self.members, self.head = pairs, members, head
        self.size = length // (pairs.start_BQ.shape[1] - 1)
        self.group = heads // key_BKTH.shape[1]
        # As many turns as the longest list of these rows has, which no shape says.
        self.grid = (rows, heads // members, pairs.start_BQ[:, -1].max(), members)
        self.numbers = (rows, heads, 1, length)
        self.column = pltpu.VMEM((self.size, 1), jnp.float32)
        self.block = pltpu.VMEM((self.size, head), jnp.float32)

    def query(self, side: int) -> pl.BlockSpec:
        """Of an array like the queries."""
        return pl.BlockSpec(
            (None, None, self.size, self.head),
            lambda b, h, s, g, *p: (b, h * self.members + g, p[side][b, s], 0),
        )

    def key(self, side: int) -> pl.BlockSpec:
        """Of an array like the keys."""
        return pl.BlockSpec(
            (None, None, self.size, self.head),
            lambda b, h, s, g, *p: (
                b,
                jax.lax.div(h * self.members, self.group),
                p[side][b, s],
                0,
            ),
        )

    def number(self, side: int) -> pl.BlockSpec:
        """Of an array that has a number for each query."""
        return pl.BlockSpec(
            (None, None, 1, self.size),
            lambda b, h, s, g, *p: (b, h * self.members + g, 0, p[side][b, s]),
        )

    def until(self, side: int) -> pl.BlockSpec:
        """Of the array that has a number for each key of a row."""
        return pl.BlockSpec(
            (None, 1, self.size),
            lambda b, h, s, g, *p: (b, 0, p[side][b, s]),
        )

    def call(self, kernel, arrays, inputs, outputs, like, scratch, interpret):
        """The kernel's outputs."""
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
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary")
            ),
            interpret=interpret,
            name=f"attention{kernel.func.__name__}",
        )(*self.pairs, *arrays)


class _Turn(NamedTuple):
    """Which blocks meet, and whether the first or last time for the outer one.

    Attributes:
      listed: false where the row's list is at its end, and another's is not.
    """

    outer: jax.Array
    inner: jax.Array
    first: jax.Array
    last: jax.Array
    listed: jax.Array


def _turn(outer_BS, inner_BS, start_BQ) -> _Turn:
    b, s, g = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    outer, members = outer_BS[b, s], pl.num_programs(3)
    return _Turn(
        outer,
        inner_BS[b, s],
        first=(s == start_BQ[b, outer]) & (g == 0),
        last=(s + 1 == start_BQ[b, outer + 1]) & (g == members - 1),
        listed=s < start_BQ[b, start_BQ.shape[1] - 1],
    )


def _forward(*refs, scale):
    until, query, key, value, mixed, log_total, top, total, sums = refs[3:]
    turn, size = _turn(*refs[:3]), query.shape[0]

    @pl.when(turn.first)
    def _():
        for ref, zero in zip((top, total, sums), blocks.nothing(*query.shape), strict=True):
            ref[...] = zero

    @pl.when(turn.listed)
    def _():
        visible = blocks.visible(until[...], turn.outer, turn.inner, size, query_axis=0)
        scores = blocks.scores(query[...], key[...], visible, scale)
        taken = blocks.take(blocks.Taken(top[...], total[...], sums[...]), scores, value[...])
        top[...], total[...], sums[...] = taken

    @pl.when(turn.last)
    def _():
        mixed_XH, log_total_X1 = blocks.result(blocks.Taken(top[...], total[...], sums[...]))
        mixed[...] = mixed_XH.astype(mixed.dtype)
        log_total[...] = log_total_X1.T


def _backward_query(*refs, scale):
    until, query, key, value, slope, log_total, shared, of_query, *scratch = refs[3:]
    log_total_X1, shared_X1, sums = scratch
    turn, size = _turn(*refs[:3]), query.shape[0]

    @pl.when(turn.first)
    def _():
        log_total_X1[...], shared_X1[...] = log_total[...].T, shared[...].T
        sums[...] = jnp.zeros_like(sums)

    @pl.when(turn.listed)
    def _():
        visible = blocks.visible(until[...], turn.outer, turn.inner, size, query_axis=0)
        scores = blocks.scores(query[...], key[...], visible, scale)
        of_weight = blocks.product(slope[...], value[...], (1, 1))
        _, of_score = blocks.slopes(scores, log_total_X1[...], of_weight, shared_X1[...], scale)
        sums[...] += blocks.product(of_score, key[...], (1, 0))

    @pl.when(turn.last)
    def _():
        of_query[...] = sums[...].astype(of_query.dtype)


def _backward_key(*refs, scale):
    until, query, key, value, slope, log_total, shared, of_key, of_value, *scratch = refs[3:]
    until_Y1, key_sums, value_sums = scratch
    turn, size = _turn(*refs[:3]), key.shape[0]

    @pl.when(turn.first)
    def _():
        until_Y1[...] = until[...].T
        key_sums[...], value_sums[...] = jnp.zeros_like(key_sums), jnp.zeros_like(value_sums)

    @pl.when(turn.listed)
    def _():
        visible = blocks.visible(until_Y1[...], turn.inner, turn.outer, size, query_axis=1)
        scores = blocks.scores(key[...], query[...], visible, scale)
        of_weight = blocks.product(value[...], slope[...], (1, 1))
        weight, of_score = blocks.slopes(scores, log_total[...], of_weight, shared[...], scale)
        key_sums[...] += blocks.product(of_score, query[...], (1, 0))
        value_sums[...] += blocks.product(weight, slope[...], (1, 0))

    @pl.when(turn.last)
    def _():
        of_key[...] = key_sums[...].astype(of_key.dtype)
        of_value[...] = value_sums[...].astype(of_value.dtype)
