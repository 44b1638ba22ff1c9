"""A model on its devices, compiled to score, to read and to generate; scores of answers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding
from jax.stages import Wrapped

from jft.batch import Array, Batch
from jft.data.packed import PackedRows, SequenceId, sum_by_sequence
from jft.model import decode, decoder, sharding
from jft.model import mesh as mesh_lib
from jft.model.decode import DecodeState, NewPrompts, PrefilledBatch, Stops
from jft.model.decode_attention import PrefixCache, SlotCache

# Tokens of a text at which its reader's distribution is recorded, and how many tokens of that.
POSITIONS, LIKELIEST = 4, 128


@functools.lru_cache(maxsize=4)
def programs(
    config: decoder.DecoderConfig, mesh: Mesh, dtype: jnp.dtype, max_new_tokens: int
) -> dict[str, Wrapped]:
    """Make the programs of `CompiledModel` by name, to be called or lowered in `jax.set_mesh`.

    Models of one shape share them, and what is compiled for them. They take the arguments of the
    functions of the same names in `decoder` and `decode`, without those that are given here.
    """
    everywhere, state = mesh_lib.replicated(mesh), _state_layout(config, mesh)
    return {
        "token_logprobs": jax.jit(
            partial(decoder.token_logprobs, config), out_shardings=everywhere
        ),
        "read": jax.jit(partial(read, config), out_shardings=everywhere),
        "prefill": jax.jit(
            partial(decode.prefill, config),
            out_shardings=PrefilledBatch._make((None, None, None, everywhere)),
        ),
        "prefix_cache": jax.jit(decode.prefix_cache, static_argnums=0),
        "init_slots": jax.jit(
            partial(decode.init_slots, config, dtype, max_new_tokens),
            static_argnums=(0, 1),
            out_shardings=state,
        ),
        # The buffers of the state are donated: there may be no room for a second cache.
        "insert": jax.jit(
            decode.insert,
            in_shardings=(state, None, None, None),
            out_shardings=state,
            donate_argnums=0,
        ),
        "compact": jax.jit(decode.compact, in_shardings=(state, None), out_shardings=state),
        "decode": jax.jit(
            partial(decode.decode, config),
            in_shardings=(None, state, None, None, None),
            out_shardings=state,
            donate_argnums=1,
        ),
    }


class Readings(NamedTuple):
    """Probabilities that a model gives to texts.

    Attributes:
      logprob_BM: the log-probability of every target.
      ids_BEV, logprobs_BEV: at some entries the likeliest tokens, V of them, by probability.
    """

    logprob_BM: Array
    ids_BEV: Array
    logprobs_BEV: Array


def read(
    config: decoder.DecoderConfig, params: decoder.Params, batch: Batch, entries_BE: Array
) -> Readings:
    """Compute the log-probabilities of all targets, and of the likeliest tokens at some entries."""
    hidden_BMD = decoder.entry_hidden(decoder.apply(config, params, batch), batch)
    logprob_BM = decoder.map_entries(
        config, params, hidden_BMD, batch.loss_target_BM, decoder.target_logprobs
    )
    hidden_BED = jnp.take_along_axis(hidden_BMD, entries_BE[..., None], axis=1)

    def likeliest(logits_BEV, _):
        return jax.lax.top_k(jax.nn.log_softmax(logits_BEV), min(LIKELIEST, config.vocab_size))

    logprobs_BEV, ids_BEV = decoder.map_entries(config, params, hidden_BED, entries_BE, likeliest)
    return Readings(logprob_BM, ids_BEV, logprobs_BEV)


def _state_layout(config: decoder.DecoderConfig, mesh: Mesh) -> DecodeState:
    """Choose the sharding of a state's arrays, and on TPUs the order of the caches in memory.

    What is generated is replicated, for the host to read.
    """
    everywhere, on_tpu = mesh_lib.replicated(mesh), mesh.devices.flat[0].platform == "tpu"

    def cache(dims: str, order: tuple[int, ...]):
        shape = config.num_layers, mesh_lib.row_shards(mesh), *map(config.size, "KHH")
        partition = sharding.spec(dims, shape, mesh.shape, sharding.ACTIVATIONS)
        where = NamedSharding(mesh, partition)
        # The order in which new tokens are written, each of them as K * H numbers side by side. If
        # programs exchanged the caches in another order, XLA:TPU would copy them whole.
        return Format(Layout(order), where) if on_tpu else where

    # Both orders have H innermost, K before it, then P: keys LRKHP are stored as LRPKH.
    keys, values = cache("LBKHP", (0, 1, 4, 2, 3)), cache("LBKPH", (0, 1, 3, 2, 4))
    return DecodeState._make((everywhere, SlotCache._make((keys, values, everywhere))))


class CompiledModel:
    """A model on a mesh; each program is compiled for a shape when it is first called with it.

    Attributes:
      vocab_size: V.
      max_new_tokens: the most that a generation may have.
      params: of the model; others of the same shape may take their place.
    """

    def __init__(
        self,
        config: decoder.DecoderConfig,
        params: decoder.Params,
        mesh: Mesh,
        dtype: jnp.dtype,
        max_new_tokens: int,
    ):
        """Take parameters that are on the mesh in `dtype`, the type to compute in."""
        self.vocab_size, self.max_new_tokens = config.vocab_size, max_new_tokens
        self.params, self._mesh, self._rows = params, mesh, mesh_lib.row_sharding(mesh, leading=0)
        self._programs = programs(config, mesh, dtype, max_new_tokens)

    def token_logprobs(self, batch: Batch) -> jax.Array:
        """Compute the log-probability of every loss target, [B, M] in float32."""
        return self._call("token_logprobs", self.params, mesh_lib.put(batch, self._rows))

    def read(self, batch: Batch, entries_BE: Array) -> Readings:
        """Compute the log-probability of every target, and what is likeliest at some entries."""
        placed = mesh_lib.put((batch, entries_BE), self._rows)
        return self._call("read", self.params, *placed)

    def prefill(self, batch: Batch) -> PrefilledBatch:
        """Compute a batch of prompts, with the first new token of each."""
        return self._call("prefill", self.params, mesh_lib.put(batch, self._rows))

    def prefix_cache(self, size: int, prefilled: PrefilledBatch, length: Array) -> PrefixCache:
        """Cache the prefix of the cell; see `decode.prefix_cache`."""
        return self._call("prefix_cache", size, prefilled, length)

    def init_slots(self, num_slots: int, slot_tokens: int) -> DecodeState:
        """Create R=`num_slots` free slots of P=`slot_tokens` tokens."""
        return self._call("init_slots", num_slots, slot_tokens)

    def insert(
        self, state: DecodeState, prefilled: PrefilledBatch, prompts: NewPrompts, stops: Stops
    ) -> DecodeState:
        """Insert prompts of a batch into slots; `state` is donated."""
        return self._call("insert", state, prefilled, prompts, stops)

    def compact(self, state: DecodeState, slot_R: Array) -> DecodeState:
        """Keep only the slots `slot_R`."""
        return self._call("compact", state, slot_R)

    def decode(
        self, state: DecodeState, prefix: PrefixCache, stops: Stops, max_active: Array
    ) -> DecodeState:
        """Generate until each shard has at most `max_active` generations left; donates `state`."""
        return self._call("decode", self.params, state, prefix, stops, max_active)

    def _call(self, name: str, *args) -> Any:
        with jax.set_mesh(self._mesh):
            return self._programs[name](*args)


class Reading(NamedTuple):
    """A text as a model read it.

    Attributes:
      logprob: of its targets, their sum.
      likeliest: at `POSITIONS` of them the likeliest tokens, each with its log-probability.
    """

    logprob: float
    likeliest: list[dict[int, float]]


def score_answers(model: CompiledModel, packed: PackedRows) -> Iterator[tuple[int, np.ndarray]]:
    """Compute the log-probabilities of each item's answers, in float64: sums over their tokens.

    Args:
      model: computes the log-probabilities of tokens.
      packed: items of tasks with labels, or with choices.

    Yields:
      Each item with those of its answers, when all of them are there.
    """
    scores = [np.zeros(len(each.sequences)) for each in packed.encoded]
    left = np.array([len(each.sequences) for each in packed.encoded])
    batches = ((model.token_logprobs(b), b, rows) for b, rows in packed.batches())
    for logprobs_BM, batch, rows in _one_ahead(batches):
        for (item, answer), value in sum_by_sequence(batch, logprobs_BM, rows):
            scores[item][answer] = value
            left[item] -= 1
            if not left[item]:
                yield item, scores[item]


def read_texts(model: CompiledModel, packed: PackedRows) -> Iterator[tuple[int, Reading]]:
    """Read packed texts, and yield each item with what was read."""
    width = POSITIONS * max(len(row) for row in packed.rows)

    def started() -> Iterator[tuple]:
        for batch, rows in packed.batches():
            entries_BE = np.zeros((len(batch.tokens_BT), width), np.int32)
            for b, row in enumerate(rows):
                places = [place for i in _positions(packed, row) for place in i]
                entries_BE[b, : len(places)] = places
            yield model.read(batch, entries_BE), batch, rows

    for readings, batch, rows in _one_ahead(started()):
        logprob_BM, ids_BEV, logprobs_BEV = map(np.asarray, readings)
        sums = sum_by_sequence(batch, logprob_BM, rows)
        for b, row in enumerate(rows):
            first = 0
            for places in _positions(packed, row):
                (item, _), total = next(sums)
                likeliest = [
                    dict(zip(ids_BEV[b, e].tolist(), logprobs_BEV[b, e].tolist(), strict=True))
                    for e in range(first, first + len(places))
                ]
                yield item, Reading(float(total), likeliest)
                first += len(places)


def _positions(packed: PackedRows, row: list[SequenceId]) -> list[list[int]]:
    """Choose entries of each text in a row, evenly over its targets."""
    return [
        sorted({of[int((k + 0.5) * len(of) / POSITIONS)] for k in range(POSITIONS)})
        for of in packed.entries(row)
    ]


def _one_ahead(started: Iterator[tuple]) -> Iterator[tuple]:
    """Yield each result when the next is under way, so that the device never waits.

    The next batch is built and sent while the device works on the one before.
    """
    pending = None
    for each in started:
        if pending:
            yield pending
        pending = each
    if pending:
        yield pending
