"""Attention under the mask rule of prefix trees, on the blocks of keys that anything sees.

A block of queries meets only the blocks of keys that `Batch.key_blocks_BQW` lists, so that a row
costs what its sequences would cost apart, however long it is. Forward and backward are those of
FlashAttention-2 (Dao 2023, arXiv 2307.08691), a few blocks of queries after the other: the weights
are never in memory as a whole. Letters, besides the usual: `A` turns of `C` blocks of queries each,
`X` queries of a block for all heads of one key-value head, `Y` keys of a block, `S` keys that a
block of queries meets.

This is what XLA compiles, for CPUs first. GPUs and TPUs have kernels for it: see `kernels/`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jft.batch import BLOCK, Array, Batch
from jft.model.kernels import tree_attention
from jft.model.remat_policy import kept

# Scores in memory at once, of one row: turns cost time, so there is one where it does no harm.
SCORES = 1 << 25


class Sight(NamedTuple):
    """What the queries of a batch see; the same for all layers.

    Attributes:
      blocks_ABCW: the blocks of keys that a block of queries meets.
      visible_ABCYS: which of their keys each query of the block sees.
    """

    blocks_ABCW: jax.Array
    visible_ABCYS: jax.Array


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
    until_BT = jnp.asarray(batch.visible_until_BT)
    rows, length = until_BT.shape
    num_blocks = math.ceil(length / BLOCK)
    every_BQQ = jnp.broadcast_to(jnp.arange(num_blocks), (rows, num_blocks, num_blocks))
    blocks_BQW = every_BQQ if batch.key_blocks_BQW is None else jnp.asarray(batch.key_blocks_BQW)
    index_QY = jnp.arange(num_blocks * BLOCK).reshape(num_blocks, BLOCK)
    until_BT = jnp.pad(until_BT, ((0, 0), (0, num_blocks * BLOCK - length)))
    # Queries that only fill up the last block see themselves, so that no softmax is empty.
    until_BQY = until_BT.reshape(rows, num_blocks, BLOCK)
    until_BQY = jnp.where(index_QY[None] < length, until_BQY, index_QY[None] + 1)
    until_BQWY = jax.vmap(lambda until_QY, blocks_QW: until_QY.at[blocks_QW].get(mode="clip"))(
        until_BQY, blocks_BQW
    )
    key_BQWY = blocks_BQW[..., None] * BLOCK + jnp.arange(BLOCK)[None, None, None]
    # A block that is not there begins where the row ends, after all queries.
    key_BQ1S, until_BQ1S = (x.reshape(rows, num_blocks, 1, -1) for x in (key_BQWY, until_BQWY))
    query_1QY1 = index_QY[None, :, :, None]
    visible_BQYS = (key_BQ1S <= query_1QY1) & (query_1QY1 < until_BQ1S)
    turns = _turns(num_blocks, num_heads * BLOCK * BLOCK * blocks_BQW.shape[2])
    return Sight(_split(blocks_BQW, turns), _split(visible_BQYS, turns))


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
    kv_heads, (turns, _, at_once) = key_BTKH.shape[2], sight.blocks_ABCW.shape[:3]
    fill = turns * at_once * BLOCK - length

    def blocks(x_BTNH):
        """[B, Q, Y, ...]: blocks of tokens."""
        x_BTNH = jnp.pad(x_BTNH, ((0, 0), (0, fill), (0, 0), (0, 0)))
        return x_BTNH.reshape(rows, turns * at_once, BLOCK, *x_BTNH.shape[2:])

    grouped = (rows, turns, at_once, BLOCK, kv_heads, heads // kv_heads, size)
    query_ABKCXH = (
        blocks(query_BTNH)
        .reshape(grouped)
        .transpose(1, 0, 4, 2, 5, 3, 6)
        .reshape(turns, rows, kv_heads, at_once, -1, size)
    )
    key_BKQYH, value_BKQYH = (blocks(x).transpose(0, 3, 1, 2, 4) for x in (key_BTKH, value_BTKH))
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
        query_BKCXH, blocks_BCW, visible_BCYS = at_once
        key_BKCSH, value_BKCSH = _meet(key_BKQYH, blocks_BCW), _meet(value_BKQYH, blocks_BCW)
        scores_BKCXS = _scores(query_BKCXH, key_BKCSH, visible_BCYS)
        top, total, weight_BKCXS = softmax(scores_BKCXS)
        mixed_BKCXH = _product("BKCXS,BKCSH->BKCXH", weight_BKCXS, value_BKCSH) / total
        return None, (mixed_BKCXH.astype(query_BKCXH.dtype), (top + jnp.log(total))[..., 0])

    _, (mixed_ABKCXH, log_total_ABKCX) = jax.lax.scan(turn, None, (query_ABKCXH, *sight))
    mixed_ABKCXH, log_total_ABKCX = kept(mixed_ABKCXH), kept(log_total_ABKCX)
    inputs = (query_ABKCXH, key_BKQYH, value_BKQYH)
    return mixed_ABKCXH, (*inputs, mixed_ABKCXH, log_total_ABKCX, sight)


def _backward(residuals, slope_ABKCXH):
    query_ABKCXH, key_BKQYH, value_BKQYH, mixed_ABKCXH, log_total_ABKCX, sight = residuals
    # What the softmax takes off: the slope of its weights' sum, which stays 1.
    shared_ABKCX = jnp.einsum(
        "...H,...H->...", slope_ABKCXH, mixed_ABKCXH, preferred_element_type=jnp.float32
    )

    def turn(slopes, at_once):
        query_BKCXH, slope_BKCXH, log_total_BKCX, shared_BKCX, blocks_BCW, visible_BCYS = at_once
        key_BKCSH, value_BKCSH = _meet(key_BKQYH, blocks_BCW), _meet(value_BKQYH, blocks_BCW)
        scores_BKCXS = _scores(query_BKCXH, key_BKCSH, visible_BCYS)
        weight_BKCXS = jnp.exp(scores_BKCXS - log_total_BKCX[..., None])
        of_weight_BKCXS = _product("BKCXH,BKCSH->BKCXS", slope_BKCXH, value_BKCSH)
        of_score_BKCXS = weight_BKCXS * (of_weight_BKCXS - shared_BKCX[..., None])
        of_score_BKCXS = of_score_BKCXS * query_BKCXH.shape[-1] ** -0.5
        new = (
            _product("BKCXS,BKCXH->BKCSH", of_score_BKCXS, query_BKCXH),
            _product("BKCXS,BKCXH->BKCSH", weight_BKCXS, slope_BKCXH),
        )
        of_query_BKCXH = _product("BKCXS,BKCSH->BKCXH", of_score_BKCXS, key_BKCSH)
        slopes = jax.tree.map(lambda total, part: _add(total, part, blocks_BCW), slopes, new)
        return slopes, of_query_BKCXH.astype(query_BKCXH.dtype)

    zeros = jnp.zeros(key_BKQYH.shape, jnp.float32)
    by_turn = (query_ABKCXH, slope_ABKCXH, log_total_ABKCX, shared_ABKCX, *sight)
    slopes, of_query_ABKCXH = jax.lax.scan(turn, (zeros, zeros), by_turn)
    of_key, of_value = (slope.astype(key_BKQYH.dtype) for slope in slopes)
    return of_query_ABKCXH, of_key, of_value, None


_attend.defvjp(_forward, _backward)


def _scores(query_BKCXH, key_BKCSH, visible_BCYS) -> jax.Array:
    """Float32, -inf where a query does not see."""
    scores_BKCXS = _product("BKCXH,BKCSH->BKCXS", query_BKCXH, key_BKCSH)
    by_head = scores_BKCXS.reshape(*scores_BKCXS.shape[:3], -1, *visible_BCYS.shape[2:])
    by_head = jnp.where(
        visible_BCYS[:, None, :, None], by_head * query_BKCXH.shape[-1] ** -0.5, -jnp.inf
    )
    return by_head.reshape(scores_BKCXS.shape)


def _meet(x_BKQYH, blocks_BCW) -> jax.Array:
    """The keys or values that blocks of queries meet, [B, K, C, S, H]."""
    taken_BKCWYH = jax.vmap(lambda x_KQYH, blocks_CW: x_KQYH.at[:, blocks_CW].get(mode="clip"))(
        x_BKQYH, blocks_BCW
    )
    shape = taken_BKCWYH.shape
    return taken_BKCWYH.reshape(*shape[:3], -1, shape[-1])


def _add(total_BKQYH, part_BKCSH, blocks_BCW) -> jax.Array:
    """The transpose of `_meet`."""
    part_BKCWYH = part_BKCSH.reshape(*part_BKCSH.shape[:3], -1, *total_BKQYH.shape[3:])
    return jax.vmap(
        lambda total_KQYH, part_KCWYH, blocks_CW: total_KQYH.at[:, blocks_CW].add(
            part_KCWYH, mode="drop"
        )
    )(total_BKQYH, part_BKCWYH, blocks_BCW)


def _product(einsum: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A float32 product of what has the type to compute in, or is cast to it."""
    return jnp.einsum(einsum, a.astype(b.dtype), b, preferred_element_type=jnp.float32)


def _turns(num_blocks: int, scores_of_block: int) -> int:
    """Into how many turns the blocks of queries go."""
    at_once = max(1, min(num_blocks, SCORES // scores_of_block))
    return next(n for n in range(-(-num_blocks // at_once), num_blocks + 1) if num_blocks % n == 0)


def _split(x_BQZ: jax.Array, turns: int) -> jax.Array:
    """[A, B, C, ...]: the blocks of queries of each turn."""
    return x_BQZ.reshape(len(x_BQZ), turns, -1, *x_BQZ.shape[2:]).swapaxes(0, 1)


def softmax(scores: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest score, the sum of the exponentials, and the exponentials."""
    top = scores.max(axis=-1, keepdims=True)
    weight = jnp.exp(scores - top)
    return top, weight.sum(axis=-1, keepdims=True), weight
