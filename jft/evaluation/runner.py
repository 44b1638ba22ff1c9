"""A model on its devices, ready to score and to generate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft.evaluation import memory
from jft.model import decoder, generate
from jft.training import mesh as mesh_lib


class Runner(NamedTuple):
    """The programs of a model on a mesh, each compiled for a shape when it first comes.

    Attributes:
      logprobs: `decoder.token_logprobs` of a batch.
      prefill: `generate.prefill` of a batch.
      trunk, start, admit, keep, decode: those of `generate`, of what they take but the model.
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
    rows, everywhere = mesh_lib.rows(mesh, leading=0), mesh_lib.replicated(mesh)

    def program(function, **options):
        run = jax.jit(function, **options)

        def on_mesh(*args):
            with jax.set_mesh(mesh):
                return run(*args)

        return on_mesh

    def of_batch(function, **options):
        run = program(partial(function, config), **options)
        return lambda batch: run(params, mesh_lib.put(batch, rows))

    start = partial(generate.start, config, dtype, max_new_tokens)
    texts = generate.State._make((everywhere, None))  # the host reads the texts
    return Runner(
        logprobs=of_batch(decoder.token_logprobs, out_shardings=everywhere),
        prefill=of_batch(generate.prefill),
        trunk=program(generate.trunk, static_argnums=0),
        start=program(start, static_argnums=(0, 1), out_shardings=texts),
        admit=program(generate.admit, donate_argnums=0, out_shardings=texts),
        keep=program(generate.keep, out_shardings=texts),
        # The state's buffers go on into the next one: there may be room for no more.
        decode=partial(
            program(partial(generate.decode, config), donate_argnums=1, out_shardings=texts), params
        ),
        vocab_size=config.vocab_size,
        max_new_tokens=max_new_tokens,
    )
