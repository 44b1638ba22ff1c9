"""Attention's kernels for GPUs: each program has one block, and loops over those that it meets.

They are compiled by Triton.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jft.model.kernels import blocks
from jft.model.kernels.pairs import Pairs

# Larger blocks, or heads, would not leave the backward pass its shared memory.
SIZE = 64
LARGEST_HEAD = 128
SMALLEST_HEAD = 16


def block_size(length: int) -> int:
    """Queries, and keys, of a block in rows of so many tokens."""
    del length
    return SIZE


def padded_head(head: int) -> int:
    """The head size that the kernels take: a power of two, as Triton wants all sizes to be."""
    return max(SMALLEST_HEAD, 1 << (head - 1).bit_length())


def forward(inputs, by_query: Pairs, scale: float, interpret: bool):
    """The mixed values, [B, N, T, H], and the logarithms of the sums, [B, N, 1, T]."""
    _, query_BNTH, key_BKTH, _ = inputs
    rows, heads, length, head = query_BNTH.shape
    group = heads // key_BKTH.shape[1]
    query, key, number = _block(head), _whole(length, head, group), _numbers_of_block()
    return _call(
        functools.partial(_forward, scale=scale),
        (*by_query, *inputs),
        (*_lists(by_query), _until(length), query, key, key),
        (query, number),
        (query_BNTH, jax.ShapeDtypeStruct((rows, heads, 1, length), jnp.float32)),
        (length // SIZE, heads, rows),
        interpret,
    )


def backward_query(inputs, by_query: Pairs, scale: float, interpret: bool):
    """The slope of the queries, [B, N, T, H]."""
    _, query_BNTH, key_BKTH, *_ = inputs
    rows, heads, length, head = query_BNTH.shape
    group = heads // key_BKTH.shape[1]
    query, key, number = _block(head), _whole(length, head, group), _numbers_of_block()
    return _call(
        functools.partial(_backward_query, scale=scale),
        (*by_query, *inputs),
        (*_lists(by_query), _until(length), query, key, key, query, number, number),
        (query,),
        (query_BNTH,),
        (length // SIZE, heads, rows),
        interpret,
    )[0]


def backward_key(inputs, by_key: Pairs, scale: float, interpret: bool):
    """The slopes of the keys and of the values, [B, K, T, H] each."""
    _, query_BNTH, key_BKTH, *_ = inputs
    rows, heads, length, head = query_BNTH.shape
    kv_heads = key_BKTH.shape[1]
    group = heads // kv_heads
    # A program takes the queries of its keys' whole group.
    queries = pl.BlockSpec((None, group, length, head), lambda q, h, b: (b, h, 0, 0))
    numbers = pl.BlockSpec((None, group, None, length), lambda q, h, b: (b, h, 0, 0))
    key = _block(head)
    return _call(
        functools.partial(_backward_key, scale=scale),
        (*by_key, *inputs),
        (*_lists(by_key), _until(length), queries, key, key, queries, numbers, numbers),
        (key, key),
        (key_BKTH, key_BKTH),
        (length // SIZE, kv_heads, rows),
        interpret,
    )


def _block(head: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, SIZE, head), lambda q, h, b: (b, h, q, 0))


def _numbers_of_block() -> pl.BlockSpec:
    return pl.BlockSpec((None, None, None, SIZE), lambda q, h, b: (b, h, 0, q))


def _whole(length: int, head: int, group: int) -> pl.BlockSpec:
    """All keys of a row, of which the kernel loads what it meets."""
    return pl.BlockSpec((None, None, length, head), lambda q, h, b: (b, h // group, 0, 0))


def _until(length: int) -> pl.BlockSpec:
    return pl.BlockSpec((None, None, length), lambda q, h, b: (b, 0, 0))


def _lists(pairs: Pairs) -> list[pl.BlockSpec]:
    return [pl.BlockSpec((None, x.shape[1]), lambda q, h, b: (b, 0)) for x in pairs]


def _call(kernel, arrays, inputs, outputs, like, grid, interpret):
    head = like[0].shape[-1]
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=inputs,
        out_specs=outputs,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like],
        compiler_params=triton.CompilerParams(num_warps=4 if head <= 64 else 8, num_stages=2),
        interpret=interpret,
        name=f"attention{kernel.func.__name__}",
    )(*arrays)


def _met(start, body, carry):
    """`body` for each place in the list of the program's own block."""
    own = pl.program_id(0)
    return jax.lax.fori_loop(start[own], start[own + 1], body, carry)


def _part(block):
    """Where a block's tokens are."""
    return pl.ds(block * SIZE, SIZE)


def _forward(_, inner, start, until, query, key, value, mixed, log_total, *, scale):
    own, query_XH = pl.program_id(0), query[...]

    def turn(s, taken):
        part = _part(inner[s])
        visible = blocks.visible(until[part][None], own, inner[s], SIZE, query_axis=0)
        scores = blocks.scores(query_XH, key[part], visible, scale)
        return blocks.take(blocks.Taken(*taken), scores, value[part])

    taken = _met(start, turn, blocks.nothing(*query_XH.shape))
    mixed_XH, log_total_X1 = blocks.result(taken)
    mixed[...] = mixed_XH.astype(mixed.dtype)
    log_total[...] = log_total_X1.reshape(SIZE)


def _backward_query(*refs, scale):
    _, inner, start, until, query, key, value, slope, log_total, shared, of_query = refs
    own, query_XH, slope_XH = pl.program_id(0), query[...], slope[...]
    log_total_X1, shared_X1 = log_total[...][:, None], shared[...][:, None]

    def turn(s, sums):
        part = _part(inner[s])
        key_YH = key[part]
        visible = blocks.visible(until[part][None], own, inner[s], SIZE, query_axis=0)
        scores = blocks.scores(query_XH, key_YH, visible, scale)
        of_weight = blocks.product(slope_XH, value[part], (1, 1))
        _, of_score = blocks.slopes(scores, log_total_X1, of_weight, shared_X1, scale)
        return sums + blocks.product(of_score, key_YH, (1, 0))

    sums = _met(start, turn, jnp.zeros(query_XH.shape, jnp.float32))
    of_query[...] = sums.astype(of_query.dtype)


def _backward_key(*refs, scale):
    _, inner, start, until, query, key, value, slope, log_total, shared, of_key, of_value = refs
    own, key_YH, value_YH = pl.program_id(0), key[...], value[...]
    until_Y1 = until[_part(own)][:, None]

    def turn(s, sums):
        part = _part(inner[s])
        visible = blocks.visible(until_Y1, inner[s], own, SIZE, query_axis=1)

        def member(g, sums):
            query_XH, slope_XH = query[g, part], slope[g, part]
            scores = blocks.scores(key_YH, query_XH, visible, scale)
            of_weight = blocks.product(value_YH, slope_XH, (1, 1))
            numbers = log_total[g, part][None], of_weight, shared[g, part][None]
            weight, of_score = blocks.slopes(scores, *numbers, scale)
            key_sums = sums[0] + blocks.product(of_score, query_XH, (1, 0))
            return key_sums, sums[1] + blocks.product(weight, slope_XH, (1, 0))

        return jax.lax.fori_loop(0, query.shape[0], member, sums)

    zeros = jnp.zeros(key_YH.shape, jnp.float32)
    key_sums, value_sums = _met(start, turn, (zeros, zeros))
    of_key[...] = key_sums.astype(of_key.dtype)
    of_value[...] = value_sums.astype(of_value.dtype)
