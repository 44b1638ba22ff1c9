"""Attention by the kernels of libraries, which take what each query sees as a whole, [B, T, T].

They compute every pair of a query and a key before it, so they are candidates for rows of which
most of these are seen. Their gradients are their own: what `jax.checkpoint` saves of other
attention is computed again here.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jft.batch import Batch, in_window, sees
from jft.model import sharding
from jft.model.kernels.blocks import Inputs
from jft.model.scores import Scores

# Rows are filled up to a multiple of what one of the libraries takes.
FILL = 128
NOT_INSTALLED = "it is not installed: take jft's extra `kernels`"
LARGEST_HEAD = 256


@dataclass(frozen=True)
class WholeMask:
    """The keys that each query of a batch sees, and the library that takes them.

    Attributes:
      name: one of `LIBRARIES`.
      visible: [B, T, T], or one of these for each of `DecoderConfig.windows`, if `by_window`.
      by_window: whether layers differ in what they see.
      on_cpu: have the library compute without its kernels, for tests.
    """

    name: str
    visible: jax.Array
    by_window: bool
    on_cpu: bool = False


def refusal(name: str, platform: str, inputs: Inputs) -> str:
    """Say why a library cannot compute attention of these inputs; empty: it can."""
    if name == "cudnn" and platform != "gpu":
        return f"it is for NVIDIA's GPUs, not for {platform}"
    if name == "tokamax" and not importlib.util.find_spec("tokamax"):
        return NOT_INSTALLED
    if inputs.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it does not take {inputs.dtype}"
    if inputs.head_size % 8 or inputs.head_size > LARGEST_HEAD:
        return f"it takes heads of a multiple of 8, up to {LARGEST_HEAD}, not {inputs.head_size}"
    if name == "cudnn" and inputs.scores.cap:
        return "it does not bound scores"
    return ""


def whole_mask(
    batch: Batch, name: str, windows: tuple[int, ...] = (0,), on_cpu: bool = False
) -> WholeMask:
    """Make the masks of a batch, once for all layers.

    Args:
      batch: of which visibility and positions are read.
      name: one of `LIBRARIES`.
      windows: `DecoderConfig.windows`.
      on_cpu: for tests.
    """
    length = batch.visible_until_BT.shape[1]
    fill = ((0, 0), (0, -length % FILL))
    # Tokens that fill a row up see themselves, so that no softmax is over nothing.
    until_BT = jnp.pad(jnp.asarray(batch.visible_until_BT), fill)
    token_T = jnp.arange(until_BT.shape[1])
    until_BT = jnp.where(token_T < length, until_BT, token_T + 1)
    seen_BTT = sees(token_T[None, :, None], token_T[None, None], until_BT[:, None])
    if not any(window and batch.has_window(window) for window in windows):
        return WholeMask(name, seen_BTT, by_window=False, on_cpu=on_cpu)
    position_BT = jnp.pad(jnp.asarray(batch.positions_BT), fill)
    pair = position_BT[:, :, None], position_BT[:, None]
    by_window = jnp.stack([seen_BTT & in_window(*pair, window) for window in windows])
    return WholeMask(name, by_window, by_window=True, on_cpu=on_cpu)


def attend_with_library(
    query_BTNH, key_BTKH, value_BTKH, mask: WholeMask, scores: Scores, window=0
) -> jax.Array:
    """Compute grouped-query attention, [B, T, N, H]; see `jft.model.attention.attend`."""
    visible_BTT = mask.visible[window] if mask.by_window else mask.visible
    length = query_BTNH.shape[1]
    fill = ((0, 0), (0, visible_BTT.shape[1] - length), (0, 0), (0, 0))
    query_BTNH, key_BTKH, value_BTKH = (
        jnp.pad(x, fill) for x in (query_BTNH, key_BTKH, value_BTKH)
    )
    inputs, tokens, _ = sharding.attention_specs(query_BTNH, key_BTKH)
    attend = functools.partial(LIBRARIES[mask.name], scores, mask.on_cpu)
    out_BTNH = sharding.shard_map(attend, inputs, tokens)(
        query_BTNH, key_BTKH, value_BTKH, visible_BTT
    )
    return out_BTNH[:, :length]


def _cudnn(scores: Scores, on_cpu: bool, query_BTNH, key_BTKH, value_BTKH, visible_BTT):
    return jax.nn.dot_product_attention(
        query_BTNH,
        key_BTKH,
        value_BTKH,
        mask=visible_BTT[:, None],
        scale=scores.scale,
        is_causal=True,
        implementation="xla" if on_cpu else "cudnn",
    )


def _tokamax(scores: Scores, on_cpu: bool, query_BTNH, key_BTKH, value_BTKH, visible_BTT):
    tokamax = importlib.import_module("tokamax")  # of an extra, and slow to import
    return tokamax.dot_product_attention(
        query_BTNH,
        key_BTKH,
        value_BTKH,
        mask=visible_BTT[:, None],
        scale=scores.scale,
        is_causal=True,
        logits_soft_cap=scores.cap or None,
        implementation="xla" if on_cpu else "mosaic",
    )


LIBRARIES: dict[str, Callable] = {"cudnn": _cudnn, "tokamax": _tokamax}
