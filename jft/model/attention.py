"""Attention under the mask rule of prefix trees, on the blocks of keys that anything sees.

A block of queries meets only the blocks of keys that `Batch.key_blocks_BQW` lists for it, and those
of its row's trunk, so that a row costs what its sequences would cost apart, however long it is.
Forward and backward are those of FlashAttention-2 (Dao 2023, arXiv 2307.08691), a few blocks of
queries after the other: the weights are never in memory as a whole. Letters, besides the usual: `A`
turns of `C` blocks of queries each, `X` queries of a block for all heads of one key-value head, `Y`
keys of a block, `S` keys that are met; where all queries of a turn meet the same keys, theirs has
a 1 for `C`.

This is what XLA compiles, for CPUs first. GPUs and TPUs have kernels for it: see `kernels/`.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jft.batch import BLOCK, Array, Batch
from jft.model.kernels import tree_attention
from jft.model.linear import save_for_backward

# Scores of a turn: those of more would leave a processor's caches between one operation and the
# next, and those of fewer make small products.
SCORES = 1 << 20
# The top of scores of which none is seen: finite, so that no weight is the exponential of NaN.
LOWEST = float(np.finfo(np.float32).min)


class Part(NamedTuple):
    """Keys that blocks of queries meet, by turns.

    Attributes:
      blocks_ABCW: their blocks, of a row's own or, past its end, none.
      visible_ABCYS: which of them each query sees.
    """

    blocks_ABCW: jax.Array
    visible_ABCYS: jax.Array


# What the queries of a batch see, the same for all layers: by lists, and in the trunk.
Sight = tuple[Part, ...]


class Met(NamedTuple):
    """The keys of a part in one turn."""

    keys_BKCSH: jax.Array
    values_BKCSH: jax.Array
    visible_BCYS: jax.Array


def visible_from(visible_until_BT: Array, query_BM: Array) -> jax.Array:
    """The mask rule, `k <= q < visible_until[k]`: the keys that some queries see, [B, M, T]."""
    key_11T = jnp.arange(visible_until_BT.shape[1])[None, None]
    until_BT, query_BM1 = jnp.asarray(visible_until_BT), jnp.asarray(query_BM)[..., None]
    return (key_11T <= query_BM1) & (query_BM1 < until_BT[:, None])


def sight(batch: Batch, num_heads: int, head_size: int) -> Sight | tree_attention.Sight:
    """The mask rule for the keys that each block of queries meets.

    Its type decides what `attend` does: kernels are used where the mesh's devices have them.
    """
    if driver := tree_attention.driver(head_size):
        return tree_attention.sight(batch, driver)
    return blocks_in_sight(batch, num_heads)


def blocks_in_sight(batch: Batch, num_heads: int) -> Sight:
    """What `sight` is where no kernel applies."""
    rows, length = batch.visible_until_BT.shape
    num_blocks = math.ceil(length / BLOCK)
    listed_BQW, trunk_BU = batch.key_blocks_BQW, batch.prefix_blocks_BU
    if listed_BQW is None:
        listed_BQW = np.zeros((rows, num_blocks, 0), np.int32)
        trunk_BU = np.tile(np.arange(num_blocks, dtype=np.int32), (rows, 1))
    listed_BQW = jnp.asarray(listed_BQW)
    most = listed_BQW.shape[2] + (0 if trunk_BU is None else trunk_BU.shape[1])
    turns, at_once = _turns(num_blocks, num_heads * BLOCK * BLOCK * most)
    fill = ((0, 0), (0, turns * at_once - num_blocks), (0, 0))
    listed_BQW = jnp.pad(listed_BQW, fill, constant_values=num_blocks)
    parts = [listed_BQW.reshape(rows, turns, at_once, -1)]
    if trunk_BU is not None:
        shape = (rows, turns, 1, trunk_BU.shape[1])
        parts.append(jnp.broadcast_to(jnp.asarray(trunk_BU)[:, None, None], shape))
    index_ACY = jnp.arange(turns * at_once * BLOCK).reshape(turns, at_once, BLOCK)
    return tuple(_part(batch, blocks, index_ACY) for blocks in parts if blocks.shape[-1])


def _part(batch: Batch, blocks_BACW: jax.Array, query_ACY: jax.Array) -> Part:
    until_BT = jnp.asarray(batch.visible_until_BT)
    fill = -until_BT.shape[1] % BLOCK
    until_BQY = jnp.pad(until_BT, ((0, 0), (0, fill))).reshape(len(until_BT), -1, BLOCK)
    until_BACWY = jax.vmap(lambda until_QY, blocks_ACW: until_QY.at[blocks_ACW].get(mode="clip"))(
        until_BQY, blocks_BACW
    )
    # A block that is not there begins where the row ends, after all queries that see anything.
    key_BACWY = blocks_BACW[..., None] * BLOCK + jnp.arange(BLOCK)[None, None, None, None]
    flat = (*blocks_BACW.shape[:3], 1, -1)
    key_BAC1S, until_BAC1S = key_BACWY.reshape(flat), until_BACWY.reshape(flat)
    query_1ACY1 = query_ACY[None, ..., None]
    visible_BACYS = (key_BAC1S <= query_1ACY1) & (query_1ACY1 < until_BAC1S)
    return Part(blocks_BACW.swapaxes(0, 1), visible_BACYS.swapaxes(0, 1))


def attend(
    query_BTNH: jax.Array,
    key_BTKH: jax.Array,
    value_BTKH: jax.Array,
    sight: Sight | tree_attention.Sight,
) -> jax.Array:
    """Grouped-query attention, softmax in float32, scaled by the root of H: [B, T, N, H]."""
    if isinstance(sight, tree_attention.Sight):
        return tree_attention.attend(query_BTNH, key_BTKH, value_BTKH, sight)
    rows, length, heads, size = query_BTNH.shape
    kv_heads, (turns, _, at_once) = key_BTKH.shape[2], sight[0].visible_ABCYS.shape[:3]

    def blocks(x_BTNH, number):
        """[B, Q, Y, ...]: blocks of tokens."""
        x_BTNH = jnp.pad(x_BTNH, ((0, 0), (0, number * BLOCK - length), (0, 0), (0, 0)))
        return x_BTNH.reshape(rows, number, BLOCK, *x_BTNH.shape[2:])

    grouped = (rows, turns, at_once, BLOCK, kv_heads, heads // kv_heads, size)
    query_ABKCXH = (
        blocks(query_BTNH, turns * at_once)
        .reshape(grouped)
        .transpose(1, 0, 4, 2, 5, 3, 6)
        .reshape(turns, rows, kv_heads, at_once, -1, size)
    )
    key_BKQYH, value_BKQYH = (
        blocks(x, math.ceil(length / BLOCK)).transpose(0, 3, 1, 2, 4)
        for x in (key_BTKH, value_BTKH)
    )
    mixed_ABKCXH = _attend(query_ABKCXH, key_BKQYH, value_BKQYH, sight)
    mixed_BTNH = (
        mixed_ABKCXH.reshape(turns, rows, kv_heads, at_once, -1, BLOCK, size)
        .transpose(1, 0, 3, 5, 2, 4, 6)
        .reshape(rows, -1, heads, size)
    )
    return mixed_BTNH[:, :length]


@jax.custom_vjp
def _attend(query_ABKCXH, key_BKQYH, value_BKQYH, sight: Sight) -> jax.Array:
    return _forward(query_ABKCXH, key_BKQYH, value_BKQYH, sight)[0]


def _forward(query_ABKCXH, key_BKQYH, value_BKQYH, sight: Sight):
    def turn(_, at_once):
        query_BKCXH, parts = at_once
        mets = [_meet(key_BKQYH, value_BKQYH, part) for part in parts]
        scores = [_scores(query_BKCXH, met) for met in mets]
        tops = [part.max(axis=-1, keepdims=True) for part in scores]
        top = jnp.concatenate(tops, axis=-1).max(axis=-1, keepdims=True, initial=LOWEST)
        weights = [jnp.exp(part - top) for part in scores]
        # The weight of the top is 1, so that only queries which see nothing have a smaller total.
        total = jnp.maximum(sum(weight.sum(axis=-1, keepdims=True) for weight in weights), 1.0)
        mixed_BKCXH = _of_queries(weights, [met.values_BKCSH for met in mets]) / total
        return None, (mixed_BKCXH.astype(query_BKCXH.dtype), (top + jnp.log(total))[..., 0])

    _, (mixed_ABKCXH, log_total_ABKCX) = jax.lax.scan(turn, None, (query_ABKCXH, sight))
    mixed_ABKCXH, log_total_ABKCX = (
        save_for_backward(mixed_ABKCXH),
        save_for_backward(log_total_ABKCX),
    )
    inputs = (query_ABKCXH, key_BKQYH, value_BKQYH)
    return mixed_ABKCXH, (*inputs, mixed_ABKCXH, log_total_ABKCX, sight)


def _backward(residuals, slope_ABKCXH):
    query_ABKCXH, key_BKQYH, value_BKQYH, mixed_ABKCXH, log_total_ABKCX, sight = residuals
    # What the softmax takes off: the slope of its weights' sum, which stays 1.
    shared_ABKCX = jnp.einsum(
        "...H,...H->...", slope_ABKCXH, mixed_ABKCXH, preferred_element_type=jnp.float32
    )

    def turn(slopes, at_once):
        query_BKCXH, slope_BKCXH, log_total_BKCX, shared_BKCX, parts = at_once
        mets = [_meet(key_BKQYH, value_BKQYH, part) for part in parts]
        of_scores = []
        for (blocks_BCW, _), met in zip(parts, mets, strict=True):
            weight_BKCXS = jnp.exp(_scores(query_BKCXH, met) - log_total_BKCX[..., None])
            of_weight_BKCXS = _of_pairs(slope_BKCXH, met.values_BKCSH)
            of_score_BKCXS = weight_BKCXS * (of_weight_BKCXS - shared_BKCX[..., None])
            of_scores.append(of_score_BKCXS * query_BKCXH.shape[-1] ** -0.5)
            new = (
                _of_keys(of_scores[-1], query_BKCXH, met),
                _of_keys(weight_BKCXS, slope_BKCXH, met),
            )
            slopes = [_add(total, x, blocks_BCW) for total, x in zip(slopes, new, strict=True)]
        of_query_BKCXH = _of_queries(of_scores, [met.keys_BKCSH for met in mets])
        return slopes, of_query_BKCXH.astype(query_BKCXH.dtype)

    zeros = jnp.zeros(key_BKQYH.shape, jnp.float32)
    by_turn = (query_ABKCXH, slope_ABKCXH, log_total_ABKCX, shared_ABKCX, sight)
    slopes, of_query_ABKCXH = jax.lax.scan(turn, [zeros, zeros], by_turn)
    of_key, of_value = (slope.astype(key_BKQYH.dtype) for slope in slopes)
    return of_query_ABKCXH, of_key, of_value, None


_attend.defvjp(_forward, _backward)


def _meet(key_BKQYH, value_BKQYH, part_of_turn: Part) -> Met:
    blocks_BCW, visible_BCYS = part_of_turn

    def take(x_KQYH, blocks_CW):
        return x_KQYH.at[:, blocks_CW].get(mode="clip")

    taken = (jax.vmap(take)(x, blocks_BCW) for x in (key_BKQYH, value_BKQYH))
    keys_BKCSH, values_BKCSH = (x.reshape(*x.shape[:3], -1, x.shape[-1]) for x in taken)
    return Met(keys_BKCSH, values_BKCSH, visible_BCYS)


def _add(total_BKQYH, part_BKCSH, blocks_BCW) -> jax.Array:
    """The transpose of what `_meet` does."""
    part_BKCWYH = part_BKCSH.reshape(*part_BKCSH.shape[:3], -1, *total_BKQYH.shape[3:])
    return jax.vmap(
        lambda total_KQYH, part_KCWYH, blocks_CW: total_KQYH.at[:, blocks_CW].add(
            part_KCWYH, mode="drop"
        )
    )(total_BKQYH, part_BKCWYH, blocks_BCW)


def _scores(query_BKCXH, met: Met) -> jax.Array:
    """Float32, -inf where a query does not see."""
    scores_BKCXS = _of_pairs(query_BKCXH, met.keys_BKCSH)
    by_head = scores_BKCXS.reshape(*scores_BKCXS.shape[:3], -1, BLOCK, scores_BKCXS.shape[-1])
    by_head = jnp.where(
        met.visible_BCYS[:, None, :, None], by_head * query_BKCXH.shape[-1] ** -0.5, -jnp.inf
    )
    return by_head.reshape(scores_BKCXS.shape)


def _of_pairs(x_BKCXH, key_BKCSH) -> jax.Array:
    """The product of each query with each key that it meets, [B, K, C, X, S]."""
    if _same_for_all(key_BKCSH):
        return _product("BKCXH,BKSH->BKCXS", x_BKCXH, key_BKCSH[:, :, 0])
    return _product("BKCXH,BKCSH->BKCXS", x_BKCXH, key_BKCSH)


def _of_queries(weights_BKCXS: list, keys_BKCSH: list) -> jax.Array:
    """The sum of keys that a query meets, weighted, [B, K, C, X, H]."""
    sums_BKCXH = (
        _product("BKCXS,BKSH->BKCXH", weight_BKCXS, key_BKCSH[:, :, 0])
        if _same_for_all(key_BKCSH)
        else _product("BKCXS,BKCSH->BKCXH", weight_BKCXS, key_BKCSH)
        for weight_BKCXS, key_BKCSH in zip(weights_BKCXS, keys_BKCSH, strict=True)
    )
    return functools.reduce(operator.add, sums_BKCXH)


def _of_keys(weight_BKCXS, x_BKCXH, met: Met) -> jax.Array:
    """The sum of queries that meet a key, weighted, [B, K, C, S, H].

    The queries, which are small, are the first factor, so that the weights need no transposition.
    The barrier has XLA leave it so: with factors in bfloat16, it fails at the other product.
    """
    weight_BKCXS = weight_BKCXS.astype(x_BKCXH.dtype)
    if _same_for_all(met.keys_BKCSH):
        sum_BKCHS = _product("BKCXH,BKCXS->BKHS", x_BKCXH, weight_BKCXS)[:, :, None]
    else:
        sum_BKCHS = _product("BKCXH,BKCXS->BKCHS", x_BKCXH, weight_BKCXS)
    return jax.lax.optimization_barrier(sum_BKCHS).swapaxes(3, 4)


def _same_for_all(key_BKCSH) -> bool:
    return key_BKCSH.shape[2] == 1


def _product(einsum: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A float32 product of what has the type to compute in, or is cast to it."""
    return jnp.einsum(einsum, a.astype(b.dtype), b, preferred_element_type=jnp.float32)


def _turns(num_blocks: int, scores_of_block: int) -> tuple[int, int]:
    """Into how many turns the blocks of queries go, and how many into each."""
    turns = math.ceil(num_blocks / max(1, SCORES // scores_of_block))
    return turns, math.ceil(num_blocks / turns)
