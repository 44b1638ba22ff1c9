"""Greedy decoding on the device: prefill, the slots of the KV cache, and the decoding loop.

The prefix trees of a batch are computed once (`prefill`). The prefix that all prompts share is
cached once (`prefix_cache`); the rest of each prompt is copied into a slot of its own (`insert`).
All slots decode in step (`decode`). A slot takes another prompt once its generation has ended. The
prompts `a b c d` and `a b c e f`, after which the model generates `v x` and `w y`:

    batch         a b c d e f
    prefix cache  a b c
                  slot 0                   slot 1
    after insert  d,   generated v         e f,    generated w
    after a step  d v, generated v x       e f w,  generated w y

A step computes keys and values of the newest token, adds them to the slot, and so finds the next
token, whose keys and values the slot does not hold yet. `prefill` has found the first one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jft.batch import Array, Batch
from jft.model import decode_attention, decoder, sharding
from jft.model.decode_attention import PrefixCache, SlotCache
from jft.model.decoder import DecoderConfig, Params
from jft.model.scores import Scores
from jft.model.sharding import constrain

# Properties of a token's text that decide whether a generation ends: bits of `Stops.text_V`.
HAS_TEXT, BLANK_LINE, TEXT_THEN_BLANK_LINE = 1, 2, 4
STARTS_LINE, ENDS_LINE, EMPTY = 8, 16, 32

# Marker in place of a token id where the largest logit is not finite.
NOT_FINITE = -2


class PrefilledBatch(NamedTuple):
    """The prefix trees of a batch, computed.

    Attributes:
      keys_LBTKH, values_LBTKH: of every token.
      token_BM: the first new token after each loss entry, of which each prompt has one.
      logprob_BM: the log-probability of the entries' targets, in float32.
    """

    keys_LBTKH: jax.Array
    values_LBTKH: jax.Array
    token_BM: jax.Array
    logprob_BM: jax.Array


class NewPrompts(NamedTuple):
    """Prompts of one batch to be inserted into slots together.

    Rows of the batch, new prompts and slots are split over the devices in the same way: each device
    inserts prompts of its own rows into its own slots, and has equally many of each.

    Attributes:
      entry_I: the prompt's loss entry in the batch, as row * M + entry of the row.
      path_IP: its tokens after the prefix of the cell, as row * T + index in the row; arbitrary
        from `length_I` on. P may be less than that of the slots.
      length_I: the number of these tokens.
      slot_I: the slot to insert into; R: none, which leaves this place of the arrays unused.
    """

    entry_I: Array
    path_IP: Array
    length_I: Array
    slot_I: Array


class Stops(NamedTuple):
    """Rules by which a generation ends, apart from the largest number of new tokens.

    Attributes:
      eos: token ids that end it.
      text_V: for every token the bits defined above; a blank line after some text ends it.
    """

    eos: Array
    text_V: Array


class Generated(NamedTuple):
    """The new tokens of every slot.

    Attributes:
      tokens_RO: token ids; -1 after the end.
      count_R: the number of them.
      has_text_R: whether their text holds more than white space.
      ends_line_R: whether their text ends with a line break.
      done_R: whether the generation has ended; True in free slots.
    """

    tokens_RO: jax.Array
    count_R: jax.Array
    has_text_R: jax.Array
    ends_line_R: jax.Array
    done_R: jax.Array


class DecodeState(NamedTuple):
    """All slots. `cache` does not hold the newest token of `generated` yet."""

    generated: Generated
    cache: SlotCache


def prefill(config: DecoderConfig, params: Params, batch: Batch) -> PrefilledBatch:
    """Compute a batch of prompts; the loss entry of each is its last token."""
    hidden_BTD, cache = decoder.apply(config, params, batch, keep_cache=True)
    hidden_BMD = decoder.entry_hidden(hidden_BTD, batch)

    def of(logits_BMV, target_BM):
        return _greedy_token(logits_BMV), decoder.target_logprobs(logits_BMV, target_BM)

    found = decoder.map_entries(config, params, hidden_BMD, batch.loss_target_BM, of)
    return PrefilledBatch(*cache, *found)


def prefix_cache(size: int, prefilled: PrefilledBatch, length: Array) -> PrefixCache:
    """Cache the prefix of the cell, which every row of the batch begins with.

    Args:
      size: T of the cache, at least `length`; a row's tokens are the most.
      prefilled: its first row is read.
      length: tokens of the prefix.
    """
    keys_LTKH, values_LTKH = prefilled.keys_LBTKH[:, 0, :size], prefilled.values_LBTKH[:, 0, :size]
    keys_LKHT = constrain(keys_LTKH.transpose(0, 2, 3, 1), "LKHT")
    values_LKTH = constrain(values_LTKH.swapaxes(1, 2), "LKTH")
    return PrefixCache(keys_LKHT, values_LKTH, jnp.asarray(length))


def init_slots(
    config: DecoderConfig,
    dtype: jnp.dtype,
    max_new_tokens: int,
    num_slots: int,
    slot_tokens: int,
) -> DecodeState:
    """Create R=`num_slots` free slots of P=`slot_tokens` tokens."""
    layers, heads, head_dim = config.num_layers, config.num_kv_heads, config.head_dim
    cache = SlotCache(
        jnp.zeros((layers, num_slots, heads, head_dim, slot_tokens), dtype),
        jnp.zeros((layers, num_slots, heads, slot_tokens, head_dim), dtype),
        jnp.zeros(num_slots, jnp.int32),
    )
    generated = _no_tokens(num_slots, max_new_tokens)._replace(done_R=jnp.ones(num_slots, bool))
    return _constrain_state(DecodeState(generated, cache))


def _no_tokens(number: int, max_new_tokens: int) -> Generated:
    """Create generations that have not begun."""
    no = jnp.zeros(number, bool)
    tokens_RO = jnp.full((number, max_new_tokens), -1, jnp.int32)
    return Generated(tokens_RO, jnp.zeros(number, jnp.int32), no, no, no)


def insert(
    state: DecodeState, prefilled: PrefilledBatch, prompts: NewPrompts, stops: Stops
) -> DecodeState:
    """Insert prompts with their first new tokens; no keys or values move between devices."""
    generated, cache = state
    num_slots, slot_I = len(cache.length_R), jnp.asarray(prompts.slot_I)
    new = _no_tokens(len(slot_I), generated.tokens_RO.shape[1])
    new = append_tokens(new, prefilled.token_BM.reshape(-1)[prompts.entry_I], stops)
    # The slot number R, which stands for none, is out of range, so that "drop" leaves it out.
    generated = jax.tree.map(lambda x, part: x.at[slot_I].set(part, mode="drop"), generated, new)
    local_slots = sharding.local_size("B", (num_slots,))
    local_slot_I = jnp.where(slot_I < num_slots, slot_I % local_slots, local_slots)
    # Slots are split as rows: `sharding.ACTIVATIONS` knows both by the letter B.
    keys_LRKHP, values_LRKPH = sharding.on_devices(
        _copy_to_slots,
        ("LBKHP", "LBKPH", "LBTKH", "LBTKH", "BP", "B"),
        ("LBKHP", "LBKPH"),
        *cache[:2],
        *prefilled[:2],
        jnp.asarray(prompts.path_IP),
        local_slot_I,
    )
    length_R = cache.length_R.at[slot_I].set(prompts.length_I, mode="drop")
    return _constrain_state(DecodeState(generated, SlotCache(keys_LRKHP, values_LRKPH, length_R)))


def _copy_to_slots(keys_LRKHP, values_LRKPH, keys_LBTKH, values_LBTKH, path_IP, slot_I):
    """Copy keys and values of paths through a device's rows to its slots."""
    path_tokens = path_IP.shape[1]

    def along_paths(x_LBTKH):
        x_LTKH = x_LBTKH.reshape(len(x_LBTKH), -1, *x_LBTKH.shape[3:])  # row after row
        # Paths count tokens over the rows of all devices, which have equally many each.
        return x_LTKH[:, path_IP % x_LTKH.shape[1]]

    keys_LIPKH, values_LIPKH = along_paths(keys_LBTKH), along_paths(values_LBTKH)
    # The caches have keys with tokens last and values with tokens before H: as the products of
    # `decode_attention.attend` read them.
    keys_LIKHP, values_LIKPH = keys_LIPKH.transpose(0, 1, 3, 4, 2), values_LIPKH.swapaxes(2, 3)
    return (
        keys_LRKHP.at[:, slot_I, :, :, :path_tokens].set(keys_LIKHP, mode="drop"),
        values_LRKPH.at[:, slot_I, :, :path_tokens].set(values_LIKPH, mode="drop"),
    )


def compact(state: DecodeState, slot_R: Array) -> DecodeState:
    """Keep only the slots `slot_R`, in this order: of each device equally many, its own."""
    generated, (keys_LRKHP, values_LRKPH, length_R) = state

    def local_slots(keys_LRKHP, values_LRKPH, slot_R):
        # One slot after the other: for a gather, XLA:TPU would first transpose the whole cache.
        local_slot_R = slot_R % keys_LRKHP.shape[1]
        found = jax.lax.map(lambda slot: (keys_LRKHP[:, slot], values_LRKPH[:, slot]), local_slot_R)
        return jax.tree.map(lambda x_RL: x_RL.swapaxes(0, 1), found)

    keys_LRKHP, values_LRKPH = sharding.on_devices(
        local_slots,
        ("LBKHP", "LBKPH", "B"),
        ("LBKHP", "LBKPH"),
        keys_LRKHP,
        values_LRKPH,
        jnp.asarray(slot_R),
    )
    generated = jax.tree.map(lambda x: x[slot_R], generated)
    cache = SlotCache(keys_LRKHP, values_LRKPH, length_R[slot_R])
    return _constrain_state(DecodeState(generated, cache))


def decode(
    config: DecoderConfig,
    params: Params,
    state: DecodeState,
    prefix: PrefixCache,
    stops: Stops,
    max_active: Array,
) -> DecodeState:
    """Generate the most likely tokens until every shard has at most `max_active` generations left.

    Args:
      config: the decoder's shape.
      params: of the decoder, in the type to compute in.
      state: the slots.
      prefix: shared by all prompts.
      stops: when a generation ends.
      max_active: [shards], for each shard of the slots the number of generations that may be
        unfinished on return; 0: all end.
    """

    def unfinished(state: DecodeState) -> jax.Array:
        active = (~state.generated.done_R).reshape(len(max_active), -1).sum(axis=1)
        return (active > max_active).any()

    def step(state: DecodeState) -> DecodeState:
        hidden_R1D, cache = _forward(config, params, prefix, state)
        token_R = _greedy_token(decoder.logits(config, params, hidden_R1D, few=True))[:, 0]
        generated = append_tokens(state.generated, token_R, stops)
        return _constrain_state(DecodeState(generated, cache))

    return jax.lax.while_loop(unfinished, step, state)


def append_tokens(generated: Generated, token_R: jax.Array, stops: Stops) -> Generated:
    """Append a new token to every unfinished generation, and find which of them it ends."""
    slots, max_new_tokens = generated.tokens_RO.shape
    bits_R = jnp.asarray(stops.text_V)[token_R]

    def has(bit):
        return (bits_R & bit) != 0

    blank_line_R = jnp.where(
        generated.has_text_R,
        has(BLANK_LINE) | (generated.ends_line_R & has(STARTS_LINE)),
        has(TEXT_THEN_BLANK_LINE),
    )
    eos_R = (token_R[:, None] == stops.eos[None]).any(axis=1)
    at_R = jnp.where(generated.done_R, max_new_tokens, generated.count_R)  # out of range if done
    count_R = generated.count_R + ~generated.done_R
    return Generated(
        tokens_RO=generated.tokens_RO.at[jnp.arange(slots), at_R].set(token_R, mode="drop"),
        count_R=count_R,
        has_text_R=generated.has_text_R | has(HAS_TEXT),
        ends_line_R=has(ENDS_LINE) | (generated.ends_line_R & has(EMPTY)),
        done_R=generated.done_R | blank_line_R | eos_R | (count_R == max_new_tokens),
    )


def _forward(
    config: DecoderConfig, params: Params, prefix: PrefixCache, state: DecodeState
) -> tuple[jax.Array, SlotCache]:
    """Compute the hidden states of the newest tokens, [R, 1, D], and add their keys and values."""
    generated, cache = state
    slot_R = jnp.arange(len(cache.length_R))
    token_R = generated.tokens_RO[slot_R, generated.count_R - 1]
    position_R = prefix.length + cache.length_R
    run, scores = decoder.layer(config), Scores.of(config)
    x_R1D, ropes = decoder.embed(config, params, token_R[:, None], position_R[:, None])
    windows = decode_attention.windows(config)

    def layer(x_R1D, of_layer):
        (layer_params, window, rope), (keys_KHT, values_KTH, keys_RKHP, values_RKPH) = of_layer

        def attend(query_R1NH, key_R1KH, value_R1KH):
            new = key_R1KH[:, 0], value_R1KH[:, 0]
            cached = (
                PrefixCache(keys_KHT, values_KTH, prefix.length),
                SlotCache(keys_RKHP, values_RKPH, cache.length_R),
            )
            size = None if windows is None else windows[window]
            out_RNH = decode_attention.attend(query_R1NH[:, 0], *new, *cached, scores, size)
            return out_RNH[:, None], new

        return run(layer_params, x_R1D, decoder.pick(ropes, rope), attend)

    # Only keys and values of the new tokens come out of the scan: if the caches did, XLA would
    # copy them in every layer.
    layers = (params["layers"], *config.by_layer()), (*prefix[:2], *cache[:2])
    x_R1D, (keys_LRKH, values_LRKH) = jax.lax.scan(layer, x_R1D, layers)
    # Array indices with a slice between them put their axis first, so R comes before L here.
    at_R, keys_RLKH, values_RLKH = (
        cache.length_R,
        keys_LRKH.swapaxes(0, 1),
        values_LRKH.swapaxes(0, 1),
    )
    cache = SlotCache(
        cache.keys_LRKHP.at[:, slot_R, :, :, at_R].set(keys_RLKH, mode="drop"),
        cache.values_LRKPH.at[:, slot_R, :, at_R].set(values_RLKH, mode="drop"),
        cache.length_R + 1,
    )
    return decoder.final_norm(config, params, x_R1D), cache


def _greedy_token(logits_BMV: jax.Array) -> jax.Array:
    """Find the most likely token by the logits, or `NOT_FINITE`; [B, M], or [R, 1].

    The largest logit, which is NaN if one is, then its first token: for two plain reductions
    XLA:CPU takes a tenth of the time of `jnp.argmax`.
    """
    largest_BM1 = logits_BMV.max(axis=-1, keepdims=True)
    token_11V = jnp.arange(logits_BMV.shape[-1], dtype=jnp.int32)[None, None]
    token_BM = jnp.where(logits_BMV == largest_BM1, token_11V, token_11V.size).min(axis=-1)
    return jnp.where(jnp.isfinite(largest_BM1[..., 0]), token_BM, NOT_FINITE)


def _constrain_state(state: DecodeState) -> DecodeState:
    """Split the caches over the devices as rows are (R as B); replicate what the host reads."""
    keys_LRKHP, values_LRKPH, length_R = state.cache
    cache = SlotCache(constrain(keys_LRKHP, "LBKHP"), constrain(values_LRKPH, "LBKPH"), length_R)
    return DecodeState(jax.tree.map(lambda x: constrain(x, "RO"[: x.ndim]), state.generated), cache)
