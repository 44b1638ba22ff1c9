"""Attention of new tokens to the prefix trees that they go on from, and to one another."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jft.batch import Array
from jft.model.attention import softmax

Part = tuple[jax.Array, jax.Array, jax.Array]


class Tree(NamedTuple):
    """One layer of the trees that prompts end in, and who ends where.

    Attributes:
      keys_BKHT, values_BKTH: of every token of the trees.
      visible_BMT: the tokens of its row that the prompt in a slot sees.
      prompt_R: the slot of each prompt, as row * M + slot of the row.
      rank_BM: the inverse: which prompt is in a slot; any in an empty one.
    """

    keys_BKHT: jax.Array
    values_BKTH: jax.Array
    visible_BMT: jax.Array
    prompt_R: Array
    rank_BM: Array


class Own(NamedTuple):
    """One layer of the prompts' new tokens, and which of them are written already."""

    keys_RKSH: jax.Array
    values_RKSH: jax.Array
    seen_S: jax.Array


def attend(query_RNH: jax.Array, tree: Tree, own: Own) -> jax.Array:
    """Attention of one new token of every prompt, to its tree and to its new tokens: [R, N, H].

    Two softmaxes become one by their largest scores and their sums.
    """
    heads, size = query_RNH.shape[1:]
    kv_heads = own.keys_RKSH.shape[1]
    query_RKGH = (query_RNH * size**-0.5).reshape(-1, kv_heads, heads // kv_heads, size)
    top, total, mixed = _attend_tree(query_RKGH, tree)
    own_top, own_total, own_mixed = _attend_own(query_RKGH, own)
    both = jnp.maximum(top, own_top)
    weight, own_weight = jnp.exp(top - both), jnp.exp(own_top - both)
    mixed_RKGH = (mixed * weight + own_mixed * own_weight) / (
        total * weight + own_total * own_weight
    )
    return mixed_RKGH.reshape(query_RNH.shape).astype(query_RNH.dtype)


def _attend_tree(query_RKGH, tree: Tree) -> Part:
    rows, prompts = tree.visible_BMT.shape[:2]
    _, kv_heads, group, size = query_RKGH.shape
    query_BMKGH = query_RKGH[tree.rank_BM]
    query_BKQH = query_BMKGH.swapaxes(1, 2).reshape(rows, kv_heads, prompts * group, size)
    scores_BKQT = jnp.einsum(
        "BKQH,BKHT->BKQT", query_BKQH, tree.keys_BKHT, preferred_element_type=jnp.float32
    )
    visible_BQT = jnp.repeat(tree.visible_BMT, group, axis=1)
    top, total, weight_BKQT = softmax(jnp.where(visible_BQT[:, None], scores_BKQT, -jnp.inf))
    mixed_BKQH = jnp.einsum(
        "BKQT,BKTH->BKQH", weight_BKQT.astype(tree.values_BKTH.dtype), tree.values_BKTH,
        preferred_element_type=jnp.float32,
    )  # fmt: skip

    def by_prompt(x_BKQX):
        x_BKMGX = x_BKQX.reshape(rows, kv_heads, prompts, group, -1)
        return x_BKMGX.swapaxes(1, 2).reshape(rows * prompts, kv_heads, group, -1)[tree.prompt_R]

    return by_prompt(top), by_prompt(total), by_prompt(mixed_BKQH)


def _attend_own(query_RKGH, own: Own) -> Part:
    # A product of one token with a few keys: sums of elements, since there is no matrix in it.
    query_RKGH = query_RKGH.astype(jnp.float32)
    scores_RKGS = (query_RKGH[:, :, :, None] * own.keys_RKSH[:, :, None]).sum(-1)
    top, total, weight_RKGS = softmax(jnp.where(own.seen_S, scores_RKGS, -jnp.inf))
    mixed_RKGH = (weight_RKGS[..., None] * own.values_RKSH[:, :, None]).sum(3)
    return top, total, mixed_RKGH
