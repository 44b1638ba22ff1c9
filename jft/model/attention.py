"""Attention along prefix trees, computed on the blocks of keys that queries see.

Rows are cut into blocks of `BLOCK` tokens. A block of queries is scored against the key blocks that
`Batch.key_blocks_BQW` lists for it and against the shared prefix of its row. So a row costs what
its sequences would cost apart, however long it is.

Blocks of queries are computed in chunks, one chunk after the other. The forward pass gathers the
key blocks of a chunk and takes the softmax over them. The backward pass is that of FlashAttention-2
(Dao 2023, arXiv 2307.08691), as a custom VJP: it computes the weights again from the log-sum-exp
that the forward pass saved. So the weights of one chunk are in memory, never those of all.

Example: four blocks, the lists [4] [1] [2] [3], where 4 means none, the prefix [0], chunks of two:

    chunk  query blocks  listed blocks, one for each  prefix, the same for both
    0      0 1           none, 1                      0
    1      2 3           2, 3                         0

Where all queries of a chunk share their keys, as in the prefix, arrays of keys have C = 1.

Layers with a window have lists, and a mask, of their own; a layer runs the branch of its window.

XLA compiles this for any device; it is written for CPUs. GPUs and TPUs have other candidates, of
which `kernels/choices.py` chooses.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jft.batch import BLOCK, Batch
from jft.model import attention_mask
from jft.model.architecture import DecoderConfig
from jft.model.attention_mask import BlockMask, KeyBlocks, Mask
from jft.model.kernels import choices, library, tree_attention
from jft.model.kernels.blocks import Inputs
from jft.model.kernels.library import WholeMask
from jft.model.kernels.tree_attention import KernelMask
from jft.model.linear import save_for_backward
from jft.model.scores import Scores

# Lower bound of the largest score of a query. It is finite, so that the weights of a query that
# sees nothing are exp(-inf) = 0, and not exp(-inf + inf).
LOWEST_SCORE = float(np.finfo(np.float32).min)


class GatheredKeys(NamedTuple):
    """Keys and values of the blocks that one chunk gathers, and which of them each query sees."""

    keys_BKCSH: jax.Array
    values_BKCSH: jax.Array
    visible_BCXS: jax.Array


def block_mask(
    batch: Batch, config: DecoderConfig, dtype: jnp.dtype
) -> Mask | KernelMask | WholeMask:
    """Make the masks of a batch, once for all layers; their type decides what `attend` runs.

    Args:
      batch: of which visibility, positions and the lists of key blocks are read.
      config: the decoder's shape.
      dtype: of queries, keys and values.
    """
    inputs = Inputs(config.head_dim, dtype, Scores.of(config))
    chosen = choices.choose(inputs, batch)
    if chosen == "xla":
        return attention_mask.make_mask(batch, config)
    if chosen == "pallas":
        kernels = tree_attention.kernels_for_mesh()
        return tree_attention.kernel_mask(batch, kernels, inputs, config.windows)
    return library.whole_mask(batch, chosen, config.windows)


def attend(
    query_BTNH: jax.Array,
    key_BTKH: jax.Array,
    value_BTKH: jax.Array,
    mask: Mask | KernelMask | WholeMask,
    scores: Scores,
    window: int | jax.Array = 0,
) -> jax.Array:
    """Compute grouped-query attention, [B, T, N, H], with the softmax in float32.

    Args:
      query_BTNH: queries, as the others already rotated.
      key_BTKH: keys.
      value_BTKH: values.
      mask: as `block_mask` makes it.
      scores: what becomes of the products of queries and keys.
      window: the layer's, as its index in `DecoderConfig.windows`.
    """
    if isinstance(mask, KernelMask):
        return tree_attention.attend_with_kernels(
            query_BTNH, key_BTKH, value_BTKH, mask, scores, window
        )
    if isinstance(mask, WholeMask):
        return library.attend_with_library(query_BTNH, key_BTKH, value_BTKH, mask, scores, window)
    rows, length, heads, head_size = query_BTNH.shape
    kv_heads, (chunks, _, chunk_size) = key_BTKH.shape[2], mask.masks[0][0].visible_ABCXS.shape[:3]

    def blocks(x_BTNH, number):
        """Cut tokens into a number of blocks, [B, Q, Y, N, H]."""
        x_BTNH = jnp.pad(x_BTNH, ((0, 0), (0, number * BLOCK - length), (0, 0), (0, 0)))
        return x_BTNH.reshape(rows, number, BLOCK, *x_BTNH.shape[2:])

    # Queries: [B, Q, Y, N, H] to [B, A, C, Y, K, G, H] to [A, B, K, C, G, Y, H] to
    # [A, B, K, C, X, H]. Chunks come first for `lax.scan`; B, K and C are the batch axes of the
    # products with keys; G and Y become one axis, X, so that a product takes all queries of a
    # key-value head at once.
    grouped = (rows, chunks, chunk_size, BLOCK, kv_heads, heads // kv_heads, head_size)
    query_ABKCXH = (
        blocks(query_BTNH, chunks * chunk_size)
        .reshape(grouped)
        .transpose(1, 0, 4, 2, 5, 3, 6)
        .reshape(chunks, rows, kv_heads, chunk_size, -1, head_size)
    )
    # Keys and values: [B, Q, Y, K, H] to [B, K, Q, Y, H], from which whole blocks are gathered.
    key_BKQYH, value_BKQYH = (
        blocks(x, math.ceil(length / BLOCK)).transpose(0, 3, 1, 2, 4)
        for x in (key_BTKH, value_BTKH)
    )
    # As an array of which `window` is an index: the mask of a layer is known only when it runs.
    which = jnp.asarray(mask.of_window)[window] if len(mask.masks) > 1 else None
    inputs = query_ABKCXH, key_BKQYH, value_BKQYH, mask.masks, which
    out_ABKCXH = _attend(scores, *inputs)
    # Back to tokens: [A, B, K, C, G, Y, H] to [B, A, C, Y, K, G, H] to [B, T, N, H].
    out_BTNH = (
        out_ABKCXH.reshape(chunks, rows, kv_heads, chunk_size, -1, BLOCK, head_size)
        .transpose(1, 0, 3, 5, 2, 4, 6)
        .reshape(rows, -1, heads, head_size)
    )
    return out_BTNH[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(scores: Scores, query_ABKCXH, key_BKQYH, value_BKQYH, masks, which) -> jax.Array:
    return _forward(scores, query_ABKCXH, key_BKQYH, value_BKQYH, masks, which)[0]


def _with_mask(function: Callable, masks: tuple[BlockMask, ...], which: jax.Array | None) -> Any:
    """Apply a function to the mask that is chosen."""
    if which is None:
        return function(masks[0])
    return jax.lax.switch(which, [functools.partial(function, mask) for mask in masks])


def _forward(scores: Scores, query_ABKCXH, key_BKQYH, value_BKQYH, masks, which):
    """Compute outputs and log-sum-exps, chunk by chunk."""

    def one_chunk(_, chunk):
        query_BKCXH, chunk_mask = chunk
        gathered = [_gather_blocks(key_BKQYH, value_BKQYH, blocks) for blocks in chunk_mask]
        each = [_scores(scores, query_BKCXH, keys) for keys in gathered]
        maxima = [score_BKCXS.max(axis=-1, keepdims=True) for score_BKCXS in each]
        max_BKCX1 = jnp.concatenate(maxima, axis=-1).max(
            axis=-1, keepdims=True, initial=LOWEST_SCORE
        )
        weights = [jnp.exp(score_BKCXS - max_BKCX1) for score_BKCXS in each]
        # The largest score has weight 1. So only a query that sees nothing has a sum below 1.
        sum_BKCX1 = jnp.maximum(sum(weight.sum(axis=-1, keepdims=True) for weight in weights), 1.0)
        out_BKCXH = _sum_over_keys(weights, [keys.values_BKCSH for keys in gathered]) / sum_BKCX1
        out_BKCXH = out_BKCXH.astype(query_BKCXH.dtype)
        lse_BKCX = (max_BKCX1 + jnp.log(sum_BKCX1))[..., 0]
        return None, (out_BKCXH, lse_BKCX)

    def with_mask(mask):
        return jax.lax.scan(one_chunk, None, (query_ABKCXH, mask))[1]

    out_ABKCXH, lse_ABKCX = map(save_for_backward, _with_mask(with_mask, masks, which))
    residuals = query_ABKCXH, key_BKQYH, value_BKQYH, out_ABKCXH, lse_ABKCX, masks, which
    return out_ABKCXH, residuals


def _backward(scores: Scores, residuals, d_out_ABKCXH):
    """Compute the gradients of queries, keys and values, chunk by chunk (FlashAttention-2)."""
    query_ABKCXH, key_BKQYH, value_BKQYH, out_ABKCXH, lse_ABKCX, masks, which = residuals
    # FlashAttention-2's D. The softmax's Jacobian is d_score = weight * (d_weight - delta), where
    # delta = sum(weight * d_weight) over the keys of a query, which equals dot(d_out, out).
    delta_ABKCX = jnp.einsum(
        "...H,...H->...", d_out_ABKCXH, out_ABKCXH, preferred_element_type=jnp.float32
    )

    def one_chunk(d_keys_values, chunk):
        query_BKCXH, d_out_BKCXH, lse_BKCX, delta_BKCX, chunk_mask = chunk
        gathered = [_gather_blocks(key_BKQYH, value_BKQYH, blocks) for blocks in chunk_mask]
        d_scores = []
        for (blocks_BCW, _), keys in zip(chunk_mask, gathered, strict=True):
            score_BKCXS = _scores(scores, query_BKCXH, keys)
            weight_BKCXS = jnp.exp(score_BKCXS - lse_BKCX[..., None])
            d_weight_BKCXS = _dot_keys(d_out_BKCXH, keys.values_BKCSH)
            d_score_BKCXS = weight_BKCXS * (d_weight_BKCXS - delta_BKCX[..., None])
            d_scores.append(scores.gradient(d_score_BKCXS, score_BKCXS))
            new = (
                _sum_over_queries(d_scores[-1], query_BKCXH, keys),
                _sum_over_queries(weight_BKCXS, d_out_BKCXH, keys),
            )
            d_keys_values = [
                _scatter_add(total, x, blocks_BCW)
                for total, x in zip(d_keys_values, new, strict=True)
            ]
        d_query_BKCXH = _sum_over_keys(d_scores, [keys.keys_BKCSH for keys in gathered])
        return d_keys_values, d_query_BKCXH.astype(query_BKCXH.dtype)

    zeros = jnp.zeros(key_BKQYH.shape, jnp.float32)

    def with_mask(mask):
        chunks = (query_ABKCXH, d_out_ABKCXH, lse_ABKCX, delta_ABKCX, mask)
        return jax.lax.scan(one_chunk, [zeros, zeros], chunks)

    d_keys_values, d_query_ABKCXH = _with_mask(with_mask, masks, which)
    d_key_BKQYH, d_value_BKQYH = (grad.astype(key_BKQYH.dtype) for grad in d_keys_values)
    return d_query_ABKCXH, d_key_BKQYH, d_value_BKQYH, None, None


_attend.defvjp(_forward, _backward)


def _gather_blocks(key_BKQYH, value_BKQYH, chunk_blocks: KeyBlocks) -> GatheredKeys:
    """Gather the keys and values of the blocks of one chunk, their W and Y in one axis S."""
    blocks_BCW, visible_BCXS = chunk_blocks

    def gather(x_KQYH, blocks_CW):
        return x_KQYH.at[:, blocks_CW].get(mode="clip")

    # [B, K, C, W, Y, H] to [B, K, C, S, H].
    gathered = (jax.vmap(gather)(x, blocks_BCW) for x in (key_BKQYH, value_BKQYH))
    keys_BKCSH, values_BKCSH = (x.reshape(*x.shape[:3], -1, x.shape[-1]) for x in gathered)
    return GatheredKeys(keys_BKCSH, values_BKCSH, visible_BCXS)


def _scatter_add(total_BKQYH, grad_BKCSH, blocks_BCW) -> jax.Array:
    """Add gradients of gathered keys to their blocks: the transpose of `_gather_blocks`."""
    grad_BKCWYH = grad_BKCSH.reshape(*grad_BKCSH.shape[:3], -1, *total_BKQYH.shape[3:])
    return jax.vmap(
        lambda total_KQYH, grad_KCWYH, blocks_CW: total_KQYH.at[:, blocks_CW].add(
            grad_KCWYH, mode="drop"
        )
    )(total_BKQYH, grad_BKCWYH, blocks_BCW)


def _scores(scores: Scores, query_BKCXH, keys: GatheredKeys) -> jax.Array:
    """Compute scores, [B, K, C, X, S] in float32; -inf where a query does not see a key."""
    scores_BKCXS = _dot_keys(query_BKCXH, keys.keys_BKCSH)
    # X as G and the queries of a block: the mask is the same for every head of a group.
    by_head = scores_BKCXS.reshape(*scores_BKCXS.shape[:3], -1, BLOCK, scores_BKCXS.shape[-1])
    by_head = jnp.where(keys.visible_BCXS[:, None, :, None], scores.of_products(by_head), -jnp.inf)
    return by_head.reshape(scores_BKCXS.shape)


def _dot_keys(x_BKCXH, key_BKCSH) -> jax.Array:
    """Multiply each query with each key that its chunk gathers, [B, K, C, X, S]."""
    if _is_shared(key_BKCSH):
        return _einsum("BKCXH,BKSH->BKCXS", x_BKCXH, key_BKCSH[:, :, 0])
    return _einsum("BKCXH,BKCSH->BKCXS", x_BKCXH, key_BKCSH)


def _sum_over_keys(weights_BKCXS: list, keys_BKCSH: list) -> jax.Array:
    """Sum gathered keys, or values, by the weights of each query, [B, K, C, X, H]."""
    sums_BKCXH = (
        _einsum("BKCXS,BKSH->BKCXH", weight_BKCXS, key_BKCSH[:, :, 0])
        if _is_shared(key_BKCSH)
        else _einsum("BKCXS,BKCSH->BKCXH", weight_BKCXS, key_BKCSH)
        for weight_BKCXS, key_BKCSH in zip(weights_BKCXS, keys_BKCSH, strict=True)
    )
    return functools.reduce(operator.add, sums_BKCXH)


def _sum_over_queries(weight_BKCXS, x_BKCXH, keys: GatheredKeys) -> jax.Array:
    """Sum queries, or gradients of outputs, by the weights of each key, [B, K, C, S, H].

    The queries, which are small, are the first factor, so that the weights need no transposition.
    The barrier keeps XLA from swapping the factors: XLA:CPU fails at that product in bfloat16.
    """
    weight_BKCXS = weight_BKCXS.astype(x_BKCXH.dtype)
    if _is_shared(keys.keys_BKCSH):
        sum_BKCHS = _einsum("BKCXH,BKCXS->BKHS", x_BKCXH, weight_BKCXS)[:, :, None]
    else:
        sum_BKCHS = _einsum("BKCXH,BKCXS->BKCHS", x_BKCXH, weight_BKCXS)
    return jax.lax.optimization_barrier(sum_BKCHS).swapaxes(3, 4)


def _is_shared(key_BKCSH) -> bool:
    """Check whether there is one set of keys for all query blocks of a chunk."""
    return key_BKCSH.shape[2] == 1


def _einsum(einsum: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiply in the type of `b`, with a float32 result."""
    return jnp.einsum(einsum, a.astype(b.dtype), b, preferred_element_type=jnp.float32)
