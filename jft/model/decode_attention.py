"""Attention of newly generated tokens to the prefix cache and to the slots of the KV cache."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jft.model.architecture import DecoderConfig
from jft.model.scores import Scores


class PrefixCache(NamedTuple):
    """Keys and values of the prefix that all prompts share; of all layers, or of one without `L`.

    T counts the first tokens of a row that are held here: the prefix, and tokens that follow it up
    to the size of the arrays, which are masked.

    Attributes:
      keys_LKHT, values_LKTH: of the first T tokens of a row.
      length: tokens of the prefix.
    """

    keys_LKHT: jax.Array
    values_LKTH: jax.Array
    length: jax.Array


class SlotCache(NamedTuple):
    """Keys and values after the prefix of the cell, a slot a prompt; of all layers, or of one.

    Attributes:
      keys_LRKHP, values_LRKPH: of the prompt's tokens after the prefix, then of its new tokens;
        arbitrary from `length_R` on.
      length_R: tokens that each slot holds.
    """

    keys_LRKHP: jax.Array
    values_LRKPH: jax.Array
    length_R: jax.Array


def attend(
    query_RNH: jax.Array,
    key_RKH: jax.Array,
    value_RKH: jax.Array,
    prefix: PrefixCache,
    slots: SlotCache,
    scores: Scores,
    window: jax.Array | None,
) -> jax.Array:
    """Attend from one new token of every slot to all tokens before it and to itself: [R, N, H].

    Args:
      query_RNH: of the new tokens.
      key_RKH: of the new tokens, which `slots` does not hold yet.
      value_RKH: of the new tokens.
      prefix: of one layer.
      slots: of one layer.
      scores: what becomes of the products of queries and keys.
      window: the layer's, at least 1; None: no layer has one.
    """
    num_slots, kv_heads, size = key_RKH.shape
    query_RKGH = query_RNH.reshape(num_slots, kv_heads, -1, size)
    num_prefix, num_own = prefix.keys_LKHT.shape[-1], slots.keys_LRKHP.shape[-1]
    prefix_1T, own_1P = jnp.arange(num_prefix)[None], jnp.arange(num_own)[None]
    length_R1 = slots.length_R[:, None]
    in_prefix_RT, in_slot_RP = prefix_1T < prefix.length, own_1P < length_R1
    if window is not None:
        in_prefix_RT &= prefix.length + length_R1 - prefix_1T < window
        in_slot_RP &= length_R1 - own_1P < window
    product_RKGT = _with_prefix("KXH,KHT->KXT", query_RKGH, prefix.keys_LKHT)
    product_RKGP = _einsum("RKGH,RKHP->RKGP", query_RKGH, slots.keys_LRKHP)
    product_RKG = (query_RKGH * key_RKH[:, :, None]).sum(axis=-1, dtype=jnp.float32)
    # One softmax over the prefix, the slot and the token itself.
    score_RKGS = (
        jnp.where(in_prefix_RT[:, None, None], scores.of_products(product_RKGT), -jnp.inf),
        jnp.where(in_slot_RP[:, None, None], scores.of_products(product_RKGP), -jnp.inf),
        scores.of_products(product_RKG[..., None]),
    )
    weights = jax.nn.softmax(jnp.concatenate(score_RKGS, axis=-1), axis=-1)
    ends = num_prefix, num_prefix + num_own
    weight_RKGT, weight_RKGP, weight_RKG1 = jnp.split(weights, ends, -1)
    out_RKGH = (
        _with_prefix("KXT,KTH->KXH", weight_RKGT, prefix.values_LKTH)
        + _einsum("RKGP,RKPH->RKGH", weight_RKGP, slots.values_LRKPH)
        + weight_RKG1 * value_RKH[:, :, None]
    )
    return out_RKGH.reshape(query_RNH.shape).astype(query_RNH.dtype)


def windows(config: DecoderConfig) -> jax.Array | None:
    """Return `config.windows`, where a number that is never reached stands for none.

    None: no layer has a window.
    """
    if config.windows == (0,):
        return None
    never = np.iinfo(np.int32).max
    return jnp.array([window or never for window in config.windows], jnp.int32)


def _with_prefix(einsum: str, x_RKG: jax.Array, prefix_K: jax.Array) -> jax.Array:
    """Multiply all slots' queries or weights with the prefix of the cell, in one product per head.

    Args:
      einsum: of x as [K, X, its last axis], where X is R times G, and of the prefix. XLA:CPU is
        fast if the batch axis K comes first.
      x_RKG: queries or weights, with one axis more than the name says.
      prefix_K: keys or values, with two axes more.

    Returns:
      [R, K, G, last axis of the product].
    """
    num_slots, kv_heads, group, _ = x_RKG.shape
    x_KX = x_RKG.swapaxes(0, 1).reshape(kv_heads, num_slots * group, -1)
    y_KX = _einsum(einsum, x_KX, prefix_K)
    return y_KX.reshape(kv_heads, num_slots, group, -1).swapaxes(0, 1)


def _einsum(einsum: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(einsum, a.astype(b.dtype), b, preferred_element_type=jnp.float32)
