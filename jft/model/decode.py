"""Greedy decoding after the prompts of prefix trees.

The trees are computed once (`prefill`). What all prompts begin with stays as it is, the trunk; what
each has of its own moves to a slot of its own (`admit`), and all slots decode in step (`decode`).
A slot is free for another prompt when its generation has ended. `R` counts slots, `C` tokens of the
trunk, `P` those of a slot, `S` new tokens, `I` prompts that come in together.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jft.batch import Array, Batch
from jft.model import attention, decode_attention, decoder, sharding
from jft.model.decode_attention import Own, Trunk
from jft.model.decoder import DecoderConfig, Params
from jft.model.sharding import constrain

# What a token's text does to a generation, as bits of `Stops.text_V`.
HAS_TEXT, BLANK_LINE, TEXT_THEN_BLANK_LINE = 1, 2, 4
STARTS_LINE, ENDS_LINE, EMPTY = 8, 16, 32


# What stands for a token where its scores are no numbers.
NONE = -2


class Prefix(NamedTuple):
    """The trees of a batch.

    Attributes:
      keys_LBTKH, values_LBTKH: of every token.
      token_BM: the first new token of each prompt.
    """

    keys_LBTKH: jax.Array
    values_LBTKH: jax.Array
    token_BM: jax.Array


class Arrivals(NamedTuple):
    """Prompts of one batch that slots take in.

    Rows, arrivals and slots are split over the devices alike: each has as many of every kind, and
    takes in what lies in its own rows.

    Attributes:
      entry_I: which of the batch each is, as row * M + slot of the row.
      path_IP: its tokens after the trunk, as row * T + place in the row; any after their end.
      length_I: their number.
      slot_I: the slot that takes it; R where there is none.
    """

    entry_I: Array
    path_IP: Array
    length_I: Array
    slot_I: Array


class Stops(NamedTuple):
    """When a generation is over.

    Attributes:
      eos: token ids that end it.
      text_V: for every token the bits above; a blank line after some text ends it, too.
    """

    eos: Array
    text_V: Array


class Texts(NamedTuple):
    """How far the generations are.

    Attributes:
      tokens_RS: -1 after the end.
      count_R: how many there are.
      has_text_R: whether they hold more than white space.
      ends_line_R: whether they end with the end of a line.
      done_R: whether nothing comes after them; True in free slots.
    """

    tokens_RS: jax.Array
    count_R: jax.Array
    has_text_R: jax.Array
    ends_line_R: jax.Array
    done_R: jax.Array


class State(NamedTuple):
    """All slots. The newest token of each is in its text, and not yet in `own`."""

    texts: Texts
    own: Own


def prefill(config: DecoderConfig, params: Params, batch: Batch) -> Prefix:
    """Run the trees once; `loss_index_BM` says where each prompt ends."""
    mask = attention.block_mask(batch, config.num_heads, config.head_dim)
    run = decoder.layer(config)
    x_BTD, rope_2BTH = decoder.embed(config, params, batch.tokens_BT, batch.positions_BT)

    def attend(query_BTNH, key_BTKH, value_BTKH):
        return attention.attend(query_BTNH, key_BTKH, value_BTKH, mask), (key_BTKH, value_BTKH)

    def body(x_BTD, layer_params):
        return run(layer_params, x_BTD, rope_2BTH, attend)

    x_BTD, (keys_LBTKH, values_LBTKH) = jax.lax.scan(body, x_BTD, params["layers"])
    hidden_BMD = jnp.take_along_axis(x_BTD, batch.loss_index_BM[..., None], axis=1)
    return Prefix(keys_LBTKH, values_LBTKH, _likeliest(config, params, hidden_BMD))


def trunk(size: int, prefix: Prefix, length: Array) -> Trunk:
    """The first tokens of a row, `length` of them and what follows up to C, the size."""
    keys_LCKH, values_LCKH = prefix.keys_LBTKH[:, 0, :size], prefix.values_LBTKH[:, 0, :size]
    keys_LKHC = constrain(keys_LCKH.transpose(0, 2, 3, 1), "LKHC")
    values_LKCH = constrain(values_LCKH.swapaxes(1, 2), "LKCH")
    return Trunk(keys_LKHC, values_LKCH, jnp.asarray(length))


def start(
    config: DecoderConfig, dtype: jnp.dtype, max_new_tokens: int, slots: int, size: int
) -> State:
    """Free slots of P tokens each, the size."""
    layers, heads, head_dim = config.num_layers, config.num_kv_heads, config.head_dim
    own = Own(
        jnp.zeros((layers, slots, heads, head_dim, size), dtype),
        jnp.zeros((layers, slots, heads, size, head_dim), dtype),
        jnp.zeros(slots, jnp.int32),
    )
    texts = _texts(slots, max_new_tokens)._replace(done_R=jnp.ones(slots, bool))
    return _laid_out(State(texts, own))


def _texts(number: int, max_new_tokens: int) -> Texts:
    no = jnp.zeros(number, bool)
    tokens_RS = jnp.full((number, max_new_tokens), -1, jnp.int32)
    return Texts(tokens_RS, jnp.zeros(number, jnp.int32), no, no, no)


def admit(state: State, prefix: Prefix, arrivals: Arrivals, stops: Stops) -> State:
    """Take prompts into slots, with their first new tokens; nothing moves between devices."""
    texts, own = state
    slots, slot_I = len(own.length_R), jnp.asarray(arrivals.slot_I)
    new = _texts(len(slot_I), texts.tokens_RS.shape[1])
    new = append(new, prefix.token_BM.reshape(-1)[arrivals.entry_I], stops)
    texts = jax.tree.map(lambda x, part: x.at[slot_I].set(part, mode="drop"), texts, new)
    share = sharding.local_size("B", (slots,))
    its_own_I = jnp.where(slot_I < slots, slot_I % share, share)
    keys_LRKHP, values_LRKPH = sharding.on_devices(
        _take_in,
        ("LBKHP", "LBKPH", "LBTKH", "LBTKH", "BP", "B"),
        ("LBKHP", "LBKPH"),
        *own[:2],
        *prefix[:2],
        jnp.asarray(arrivals.path_IP),
        its_own_I,
    )
    length_R = own.length_R.at[slot_I].set(arrivals.length_I, mode="drop")
    return _laid_out(State(texts, Own(keys_LRKHP, values_LRKPH, length_R)))


def _take_in(keys_LRKHP, values_LRKPH, keys_LBTKH, values_LBTKH, path_IP, slot_I):
    """Copy paths of a device's rows to its slots."""
    most = path_IP.shape[1]

    def of_paths(x_LBTKH):
        x_LZKH = x_LBTKH.reshape(len(x_LBTKH), -1, *x_LBTKH.shape[3:])
        return x_LZKH[:, path_IP % x_LZKH.shape[1]]

    keys_LIPKH, values_LIPKH = of_paths(keys_LBTKH), of_paths(values_LBTKH)
    keys_LIKHP, values_LIKPH = keys_LIPKH.transpose(0, 1, 3, 4, 2), values_LIPKH.swapaxes(2, 3)
    return (
        keys_LRKHP.at[:, slot_I, :, :, :most].set(keys_LIKHP, mode="drop"),
        values_LRKPH.at[:, slot_I, :, :most].set(values_LIKPH, mode="drop"),
    )


def keep(state: State, slot_R: Array) -> State:
    """Some of the slots, in this order: of each device as many, its own."""
    texts, (keys_LRKHP, values_LRKPH, length_R) = state

    def of_slots(keys_LRKHP, values_LRKPH, slot_R):
        # One after the other: as a gather, XLA for TPUs would turn the whole cache first.
        its_own_R = slot_R % keys_LRKHP.shape[1]
        kept = jax.lax.map(lambda slot: (keys_LRKHP[:, slot], values_LRKPH[:, slot]), its_own_R)
        return jax.tree.map(lambda x_RL: x_RL.swapaxes(0, 1), kept)

    keys_LRKHP, values_LRKPH = sharding.on_devices(
        of_slots,
        ("LBKHP", "LBKPH", "B"),
        ("LBKHP", "LBKPH"),
        keys_LRKHP,
        values_LRKPH,
        jnp.asarray(slot_R),
    )
    texts = jax.tree.map(lambda x: x[slot_R], texts)
    return _laid_out(State(texts, Own(keys_LRKHP, values_LRKPH, length_R[slot_R])))


def decode(
    config: DecoderConfig, params: Params, state: State, trunk: Trunk, stops: Stops, active_G: Array
) -> State:
    """Go on with the most likely tokens until no device has more than so many to go on with.

    Args:
      config: the decoder's shape.
      params: of the decoder, in the type to compute in.
      state: the slots.
      trunk: what all prompts begin with.
      stops: when a generation is over.
      active_G: of each share of the slots, how many generations may be left; 0 for none.
    """

    def goes_on(state: State) -> jax.Array:
        left_G = (~state.texts.done_R).reshape(len(active_G), -1).sum(axis=1)
        return (left_G > active_G).any()

    def go_on(state: State) -> State:
        hidden_RD, own = _forward(config, params, trunk, state)
        token_R = _likeliest(config, params, hidden_RD[:, None])[:, 0]
        return _laid_out(State(append(state.texts, token_R, stops), own))

    return jax.lax.while_loop(goes_on, go_on, state)


def append(texts: Texts, token_R: jax.Array, stops: Stops) -> Texts:
    """Write the new tokens of the generations that go on, and see which of them end."""
    prompts, most = texts.tokens_RS.shape
    bits_R = jnp.asarray(stops.text_V)[token_R]

    def has(bit):
        return (bits_R & bit) != 0

    blank_R = jnp.where(
        texts.has_text_R,
        has(BLANK_LINE) | (texts.ends_line_R & has(STARTS_LINE)),
        has(TEXT_THEN_BLANK_LINE),
    )
    eos_R = (token_R[:, None] == stops.eos[None]).any(axis=1)
    at_R = jnp.where(texts.done_R, most, texts.count_R)
    count_R = texts.count_R + ~texts.done_R
    return Texts(
        tokens_RS=texts.tokens_RS.at[jnp.arange(prompts), at_R].set(token_R, mode="drop"),
        count_R=count_R,
        has_text_R=texts.has_text_R | has(HAS_TEXT),
        ends_line_R=has(ENDS_LINE) | (texts.ends_line_R & has(EMPTY)),
        done_R=texts.done_R | blank_R | eos_R | (count_R == most),
    )


def _forward(
    config: DecoderConfig, params: Params, trunk: Trunk, state: State
) -> tuple[jax.Array, Own]:
    """The hidden states of the newest tokens, [R, D], and their keys and values with the others."""
    texts, own = state
    slot_R = jnp.arange(len(own.length_R))
    token_R = texts.tokens_RS[slot_R, texts.count_R - 1]
    position_R = trunk.length + own.length_R
    run = decoder.layer(config)
    x_R1D, rope_2R1H = decoder.embed(config, params, token_R[:, None], position_R[:, None])

    def layer(x_R1D, of_layer):
        layer_params, keys_KHC, values_KCH, keys_RKHP, values_RKPH = of_layer

        def attend(query_R1NH, key_R1KH, value_R1KH):
            new = key_R1KH[:, 0], value_R1KH[:, 0]
            seen = (
                Trunk(keys_KHC, values_KCH, trunk.length),
                Own(keys_RKHP, values_RKPH, own.length_R),
            )
            return decode_attention.attend(query_R1NH[:, 0], *new, *seen)[:, None], new

        return run(layer_params, x_R1D, rope_2R1H, attend)

    x_R1D, (keys_LRKH, values_LRKH) = jax.lax.scan(
        layer, x_R1D, (params["layers"], *trunk[:2], *own[:2])
    )
    # Only the new tokens leave the scan: the caches themselves would be copied in every layer.
    # Indices with a slice between them put their dimension first.
    at_R, keys_RLKH, values_RLKH = (
        own.length_R,
        keys_LRKH.swapaxes(0, 1),
        values_LRKH.swapaxes(0, 1),
    )
    own = Own(
        own.keys_LRKHP.at[:, slot_R, :, :, at_R].set(keys_RLKH, mode="drop"),
        own.values_LRKPH.at[:, slot_R, :, at_R].set(values_RLKH, mode="drop"),
        own.length_R + 1,
    )
    return x_R1D[:, 0], own


def _likeliest(config: DecoderConfig, params: Params, hidden_BMD: jax.Array) -> jax.Array:
    """The most likely token after the last layer's hidden states, [B, M]; `NONE` of no numbers."""
    logits_BMV = decoder.logits(config, params, decoder.final_norm(config, params, hidden_BMD))
    token_BM = jnp.argmax(logits_BMV, axis=-1).astype(jnp.int32)  # the first that is none, if any
    largest_BM1 = jnp.take_along_axis(logits_BMV, token_BM[..., None], axis=-1)
    return jnp.where(jnp.isfinite(largest_BM1[..., 0]), token_BM, NONE)


def _laid_out(state: State) -> State:
    """The slots split over the devices as rows are; what the host reads is everywhere."""

    keys_LRKHP, values_LRKPH, length_R = state.own
    own = Own(constrain(keys_LRKHP, "LBKHP"), constrain(values_LRKPH, "LBKPH"), length_R)
    return State(jax.tree.map(lambda x: constrain(x, "RS"[: x.ndim]), state.texts), own)
