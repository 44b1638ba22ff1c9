"""Attention of new tokens to what their prompts have in common, and to what each has of its own."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Trunk(NamedTuple):
    """What all prompts begin with; of all layers, or of one without `L`.

    Attributes:
      keys_LKHC, values_LKCH: of its tokens, and of some that come after them.
      length: of its tokens.
    """

    keys_LKHC: jax.Array
    values_LKCH: jax.Array
    length: jax.Array


class Own(NamedTuple):
    """What follows the trunk in each prompt, and its new tokens; of all layers, or of one.

    Attributes:
      keys_LRKHP, values_LRKPH: of their tokens, with room for more.
      length_R: how many there are.
    """

    keys_LRKHP: jax.Array
    values_LRKPH: jax.Array
    length_R: jax.Array


def attend(
    query_RNH: jax.Array, key_RKH: jax.Array, value_RKH: jax.Array, trunk: Trunk, own: Own
) -> jax.Array:
    """Attention of one new token of every prompt to all before it and to itself: [R, N, H].

    Args:
      query_RNH: of the new tokens.
      key_RKH: of the new tokens, which `own` does not hold yet.
      value_RKH: likewise.
      trunk: of one layer.
      own: of one layer.
    """
    prompts, kv_heads, size = key_RKH.shape
    query_RKGH = (query_RNH * size**-0.5).reshape(prompts, kv_heads, -1, size)
    num_trunk, num_own = trunk.keys_LKHC.shape[-1], own.keys_LRKHP.shape[-1]
    in_trunk_111C = (jnp.arange(num_trunk) < trunk.length)[None, None, None]
    in_own_R11P = (jnp.arange(num_own)[None] < own.length_R[:, None])[:, None, None]
    score_RKGC = _of_trunk("KQH,KHC->KQC", query_RKGH, trunk.keys_LKHC)
    score_RKGP = _product("RKGH,RKHP->RKGP", query_RKGH, own.keys_LRKHP)
    score_RKG = (query_RKGH * key_RKH[:, :, None]).sum(axis=-1, dtype=jnp.float32)
    scores = (
        jnp.where(in_trunk_111C, score_RKGC, -jnp.inf),
        jnp.where(in_own_R11P, score_RKGP, -jnp.inf),
        score_RKG[..., None],
    )
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
    weight_RKGC, weight_RKGP, weight_RKG1 = jnp.split(weights, (num_trunk, num_trunk + num_own), -1)
    mixed_RKGH = (
        _of_trunk("KQC,KCH->KQH", weight_RKGC, trunk.values_LKCH)
        + _product("RKGP,RKPH->RKGH", weight_RKGP, own.values_LRKPH)
        + weight_RKG1 * value_RKH[:, :, None]
    )
    return mixed_RKGH.reshape(query_RNH.shape).astype(query_RNH.dtype)


def _of_trunk(einsum: str, x_RKGX: jax.Array, trunk_KXY: jax.Array) -> jax.Array:
    """One product for all prompts: [R, K, G, Y]. XLA for CPUs wants the letter that stays first."""
    prompts, kv_heads, group, _ = x_RKGX.shape
    x_KQX = x_RKGX.swapaxes(0, 1).reshape(kv_heads, prompts * group, -1)
    y_KQY = _product(einsum, x_KQX, trunk_KXY)
    return y_KQY.reshape(kv_heads, prompts, group, -1).swapaxes(0, 1)


def _product(einsum: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(einsum, a.astype(b.dtype), b, preferred_element_type=jnp.float32)
