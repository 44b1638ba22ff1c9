"""A model on its devices, ready to score and to generate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft.model import decoder, generate
from jft.training import mesh as mesh_lib


class Runner(NamedTuple):
    """The programs of a model on a mesh, each compiled for a shape when it first comes.

    Attributes:
      logprobs: `decoder.token_logprobs` of a batch.
      prefill: `generate.prefill` of a batch.
      decode: `generate.decode` of its result and what else that takes but the parameters.
      vocab_size: V.
      shards: how many devices share the rows of a batch.
      max_new_tokens: the most that a prompt is continued by.
    """

    logprobs: Callable[..., Any]
    prefill: Callable[..., Any]
    decode: Callable[..., Any]
    vocab_size: int
    shards: int
    max_new_tokens: int


def create(
    config: decoder.DecoderConfig,
    params: decoder.Params,
    mesh: Mesh,
    dtype: jnp.dtype,
    max_new_tokens: int,
) -> Runner:
    """Cast the parameters to the type to compute in; generations end after `max_new_tokens`."""
    layout = mesh_lib.parameters(mesh, config)
    cast = jax.jit(
        lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree), out_shardings=layout
    )(params)
    rows, everywhere = mesh_lib.rows(mesh, leading=0), mesh_lib.replicated(mesh)

    def program(function, out=None):
        run = jax.jit(function, out_shardings=out)

        def on_mesh(*args):
            with jax.set_mesh(mesh):
                return run(cast, *args)

        return on_mesh

    def of_batch(run):
        return lambda batch: run(jax.tree.map(lambda x: jax.device_put(x, rows), batch))

    return Runner(
        logprobs=of_batch(program(partial(decoder.token_logprobs, config), everywhere)),
        prefill=of_batch(program(partial(generate.prefill, config))),
        decode=program(partial(generate.decode, config, max_new_tokens), everywhere),
        vocab_size=config.vocab_size,
        shards=mesh_lib.row_shards(mesh),
        max_new_tokens=max_new_tokens,
    )
