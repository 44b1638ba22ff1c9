"""The model without any packing: one sequence in one row, what everything else must equal."""

import functools

import jax
import jax.numpy as jnp

from jft.batch import Batch
from jft.model import decoder


@functools.partial(jax.jit, static_argnums=0)
def logits(config, params, tokens_1T):
    """Compute the logits of every position, [T, V]."""
    positions_1T = jnp.arange(tokens_1T.shape[1])[None]
    everywhere_1T = jnp.full_like(positions_1T, tokens_1T.shape[1])
    batch = Batch(tokens_1T, positions_1T, everywhere_1T, *[None] * 4)
    return decoder.logits(config, params, decoder.apply(config, params, batch))[0]
