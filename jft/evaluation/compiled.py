"""A model on its devices, ready to score and to generate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding

from jft.evaluation import memory
from jft.model import decode, decoder, sharding
from jft.model import mesh as mesh_lib
from jft.model.decode_attention import Own


class Programs(NamedTuple):
    """What a model of some shape runs on a mesh, as `jax.jit` returns it; for `jax.set_mesh`.

    Attributes:
      logprobs: `decoder.token_logprobs`, of parameters and a batch.
      prefill: `generate.prefill`, of the same.
      trunk, start, admit, keep, decode: those of `generate`.
    """

    logprobs: Any
    prefill: Any
    trunk: Any
    start: Any
    admit: Any
    keep: Any
    decode: Any


def programs(
    config: decoder.DecoderConfig, mesh: Mesh, dtype: jnp.dtype, max_new_tokens: int
) -> Programs:
    """Of a decoder that computes in `dtype`; a generation has up to `max_new_tokens`."""
    everywhere, state = mesh_lib.replicated(mesh), _state(config, mesh)
    start = partial(decode.start, config, dtype, max_new_tokens)
    return Programs(
        logprobs=jax.jit(partial(decoder.token_logprobs, config), out_shardings=everywhere),
        prefill=jax.jit(partial(decode.prefill, config)),
        trunk=jax.jit(decode.trunk, static_argnums=0),
        start=jax.jit(start, static_argnums=(0, 1), out_shardings=state),
        # The state's buffers go on into the next one: there may be room for no more.
        admit=jax.jit(
            decode.admit,
            in_shardings=(state, None, None, None),
            out_shardings=state,
            donate_argnums=0,
        ),
        keep=jax.jit(decode.keep, in_shardings=(state, None), out_shardings=state),
        decode=jax.jit(
            partial(decode.decode, config),
            in_shardings=(None, state, None, None, None),
            out_shardings=state,
            donate_argnums=1,
        ),
    )


def _state(config: decoder.DecoderConfig, mesh: Mesh) -> decode.State:
    """Where the state of generations lies, and how: its texts everywhere, for the host to read."""
    everywhere, on_tpu = mesh_lib.replicated(mesh), mesh.devices.flat[0].platform == "tpu"

    def cache(letters: str, order: tuple[int, ...]):
        shape = config.num_layers, mesh_lib.row_shards(mesh), *map(config.size, "KHH")
        partition = sharding.spec(letters, shape, mesh.shape, sharding.ACTIVATIONS)
        where = NamedSharding(mesh, partition)
        # In the order in which new tokens are written; XLA for TPUs would copy it all to have it.
        return Format(Layout(order), where) if on_tpu else where

    keys, values = cache("LBKHP", (0, 1, 4, 2, 3)), cache("LBKPH", (0, 1, 3, 2, 4))
    return decode.State._make((everywhere, Own._make((keys, values, everywhere))))


class Runner(NamedTuple):
    """The programs of a model on a mesh, each compiled for a shape when it first comes.

    Attributes:
      logprobs, prefill: of a batch.
      trunk, start, admit, keep, decode: of what they take but the model.
      vocab_size: V.
      max_new_tokens: the most that a prompt is continued by.
    """

    logprobs: Callable[..., Any]
    prefill: Callable[..., Any]
    trunk: Callable[..., Any]
    start: Callable[..., Any]
    admit: Callable[..., Any]
    keep: Callable[..., Any]
    decode: Callable[..., Any]
    vocab_size: int
    max_new_tokens: int


def create(
    config: decoder.DecoderConfig,
    params: decoder.Params,
    mesh: Mesh,
    dtype: jnp.dtype,
    max_new_tokens: int,
) -> Runner:
    """Of parameters that lie on the mesh in `dtype`; a generation has up to `max_new_tokens`."""
    memory.keep_freed()
    rows, run = (
        mesh_lib.row_sharding(mesh, leading=0),
        programs(config, mesh, dtype, max_new_tokens),
    )

    def on_mesh(program, *first):
        def call(*args):
            with jax.set_mesh(mesh):
                return program(*first, *args)

        return call

    def of_batch(program):
        call = on_mesh(program, params)
        return lambda batch: call(mesh_lib.put(batch, rows))

    return Runner(
        logprobs=of_batch(run.logprobs),
        prefill=of_batch(run.prefill),
        trunk=on_mesh(run.trunk),
        start=on_mesh(run.start),
        admit=on_mesh(run.admit),
        keep=on_mesh(run.keep),
        decode=on_mesh(run.decode, params),
        vocab_size=config.vocab_size,
        max_new_tokens=max_new_tokens,
    )
