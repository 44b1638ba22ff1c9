"""Greedy decoding after the prompts of prefix trees.

The trees are computed once (`prefill`); then all prompts decode in step (`decode`). A prompt reads
the keys of its row through the mask row of its own last token, and beside them a small cache of its
own new tokens; nothing of the trees is copied or computed again. `R` counts prompts, `S` new
tokens, `G` query heads of one key-value head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jft.batch import Array, Batch
from jft.model import attention, decoder, onwards
from jft.model.decoder import DecoderConfig, Params
from jft.model.onwards import Own, Tree

# What a token's text does to a generation, as bits of `Stops.text_V`.
HAS_TEXT, BLANK_LINE, TEXT_THEN_BLANK_LINE = 1, 2, 4
STARTS_LINE, ENDS_LINE, EMPTY = 8, 16, 32


class Prefix(NamedTuple):
    """What the prompts of each row have in common, and what is their own.

    Attributes:
      keys_LBKHT, values_LBKTH: of the trees.
      hidden_BMD: of each prompt's last token.
      visible_BMT: the tokens of the row that belong to each prompt.
      positions_BM: where each prompt's first new token stands.
    """

    keys_LBKHT: jax.Array
    values_LBKTH: jax.Array
    hidden_BMD: jax.Array
    visible_BMT: jax.Array
    positions_BM: jax.Array


class Slots(NamedTuple):
    """Where the prompts that decode together stand in the batches they come from.

    Attributes:
      prompt_R: as row * M + slot; 0 in padding.
      rank_BM: the inverse: which prompt is in a slot; any in an empty one.
      active_R: False in padding.
    """

    prompt_R: Array
    rank_BM: Array
    active_R: Array


class Stops(NamedTuple):
    """When a generation is over.

    Attributes:
      eos: token ids that end it.
      text_V: for every token the bits above; a blank line after some text ends it, too.
    """

    eos: Array
    text_V: Array


class Progress(NamedTuple):
    """How far the generations are."""

    step: jax.Array
    tokens_RS: jax.Array
    token_R: jax.Array
    has_text_R: jax.Array
    ends_line_R: jax.Array
    done_R: jax.Array
    keys_LRKSH: jax.Array
    values_LRKSH: jax.Array


def prefill(config: DecoderConfig, params: Params, batch: Batch) -> Prefix:
    """Run the trees once; `loss_index_BM` says where each prompt ends."""
    sight = attention.sight(batch, config.num_heads)
    run = decoder.layer(config)
    x_BTD, rope_2BTH = decoder.embed(config, params, batch.tokens_BT, batch.positions_BT)

    def attend(query_BTNH, key_BTKH, value_BTKH):
        mixed_BTNH = attention.attend(query_BTNH, key_BTKH, value_BTKH, sight)
        return mixed_BTNH, (key_BTKH.transpose(0, 2, 3, 1), value_BTKH.swapaxes(1, 2))

    def body(x_BTD, layer_params):
        return run(layer_params, x_BTD, rope_2BTH, attend)

    x_BTD, (keys_LBKHT, values_LBKTH) = jax.lax.scan(body, x_BTD, params["layers"])
    end_BM = batch.loss_index_BM
    hidden_BMD = jnp.take_along_axis(x_BTD, end_BM[..., None], axis=1)
    return Prefix(
        keys_LBKHT,
        values_LBKTH,
        decoder.final_norm(config, params, hidden_BMD),
        attention.visible_from(batch.visible_until_BT, end_BM),
        jnp.take_along_axis(batch.positions_BT, end_BM, axis=1) + 1,
    )


def decode(
    config: DecoderConfig,
    max_new_tokens: int,
    params: Params,
    prefixes: Sequence[Prefix],
    slots: Slots,
    stops: Stops,
) -> jax.Array:
    """The most likely tokens one after the other, [R, S] in int32; -1 after the end.

    Args:
      config: the decoder's shape.
      max_new_tokens: S.
      params: of the decoder, in the type to compute in.
      prefixes: of `prefill`, of equal shapes; their rows count on.
      slots: which of their prompts, and where they stand.
      stops: when a generation is over.
    """
    prefix, prompts = _join(prefixes), len(slots.prompt_R)
    hidden_RD = prefix.hidden_BMD.reshape(-1, config.embed_dim)[slots.prompt_R]
    cache_shape = (config.num_layers, prompts, config.num_kv_heads, max_new_tokens, config.head_dim)
    start = Progress(
        step=jnp.int32(0),
        tokens_RS=jnp.full((prompts, max_new_tokens), -1, jnp.int32),
        token_R=jnp.zeros(prompts, jnp.int32),
        has_text_R=jnp.zeros(prompts, bool),
        ends_line_R=jnp.zeros(prompts, bool),
        done_R=~jnp.asarray(slots.active_R),
        keys_LRKSH=jnp.zeros(cache_shape, hidden_RD.dtype),
        values_LRKSH=jnp.zeros(cache_shape, hidden_RD.dtype),
    )

    def choose(hidden_RD: jax.Array, state: Progress) -> Progress:
        logits_RV = decoder.logits(config, params, hidden_RD[:, None])[:, 0]
        return append(state, jnp.argmax(logits_RV, axis=-1).astype(jnp.int32), stops)

    def goes_on(state: Progress) -> jax.Array:
        return (state.step < max_new_tokens) & ~state.done_R.all()

    def go_on(state: Progress) -> Progress:
        return choose(*_forward(config, params, prefix, slots, state))

    return jax.lax.while_loop(goes_on, go_on, choose(hidden_RD, start)).tokens_RS


def _forward(
    config: DecoderConfig, params: Params, prefix: Prefix, slots: Slots, state: Progress
) -> tuple[jax.Array, Progress]:
    """The hidden states of the newest tokens, [R, D], which join the caches."""
    at = state.step - 1  # of the newest token
    position_R = prefix.positions_BM.reshape(-1)[slots.prompt_R] + at
    seen_S = jnp.arange(state.tokens_RS.shape[1]) <= at
    run = decoder.layer(config)
    x_R1D, rope_2R1H = decoder.embed(config, params, state.token_R[:, None], position_R[:, None])

    def layer(x_R1D, of_layer):
        layer_params, tree_keys, tree_values, keys_RKSH, values_RKSH = of_layer
        tree = Tree(tree_keys, tree_values, prefix.visible_BMT, slots.prompt_R, slots.rank_BM)

        def attend(query_R1NH, key_R1KH, value_R1KH):
            new = key_R1KH.swapaxes(1, 2), value_R1KH.swapaxes(1, 2)
            own = Own(_put(keys_RKSH, new[0], at), _put(values_RKSH, new[1], at), seen_S)
            return onwards.attend(query_R1NH[:, 0], tree, own)[:, None], new

        return run(layer_params, x_R1D, rope_2R1H, attend)

    trees, caches = (prefix.keys_LBKHT, prefix.values_LBKTH), (state.keys_LRKSH, state.values_LRKSH)
    x_R1D, (keys, values) = jax.lax.scan(layer, x_R1D, (params["layers"], *trees, *caches))
    # Only the new tokens leave the scan: the caches themselves would be copied in every layer.
    caches = _put(state.keys_LRKSH, keys, at), _put(state.values_LRKSH, values, at)
    state = state._replace(keys_LRKSH=caches[0], values_LRKSH=caches[1])
    return decoder.final_norm(config, params, x_R1D)[:, 0], state


def _put(cache: jax.Array, new: jax.Array, at: jax.Array) -> jax.Array:
    """Write one token into the axis before the last."""
    return jax.lax.dynamic_update_slice_in_dim(cache, new, at, axis=cache.ndim - 2)


def _join(prefixes: Sequence[Prefix]) -> Prefix:
    if len(prefixes) == 1:
        return prefixes[0]
    by_row = [jnp.concatenate(parts) for parts in zip(*(p[2:] for p in prefixes), strict=True)]
    by_layer = [jnp.concatenate(kv, axis=1) for kv in zip(*(p[:2] for p in prefixes), strict=True)]
    return Prefix(*by_layer, *by_row)


def append(state: Progress, token_R: jax.Array, stops: Stops) -> Progress:
    """Write the new tokens of the generations that go on, and see which of them end."""
    written_R = jnp.where(state.done_R, -1, token_R)
    bits_R = stops.text_V[token_R]

    def has(bit):
        return (bits_R & bit) != 0

    blank_R = jnp.where(
        state.has_text_R,
        has(BLANK_LINE) | (state.ends_line_R & has(STARTS_LINE)),
        has(TEXT_THEN_BLANK_LINE),
    )
    eos_R = (token_R[:, None] == stops.eos[None]).any(axis=1)
    return state._replace(
        step=state.step + 1,
        tokens_RS=jax.lax.dynamic_update_slice(
            state.tokens_RS, written_R[:, None], (0, state.step)
        ),
        token_R=token_R,
        has_text_R=state.has_text_R | has(HAS_TEXT),
        ends_line_R=has(ENDS_LINE) | (state.ends_line_R & has(EMPTY)),
        done_R=state.done_R | blank_R | eos_R,
    )
