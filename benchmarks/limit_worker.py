"""The matrix products that the work cannot do without, and nothing else: the machine's own limit.

Only tokens that are really needed count: no padding, no attention, no norms, no update, the head on
loss entries alone. Each product is XLA's of two whole matrices, one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import jft_worker, worker
from benchmarks.work import WORKS
from jft.checkpoints.session import open_session
from jft.data import prefix_tree
from jft.data import train_batches as batches_lib
from jft.model.decoder import DecoderConfig


class Product(NamedTuple):
    """A product of activations [tokens, inputs] with a kernel [outputs, inputs].

    Attributes:
      times: how many times the work needs it.
    """

    tokens: int
    outputs: int
    inputs: int
    times: int


def prepare(spec: dict) -> Callable[[], list]:
    """Return a function that does one round of the products of the work that `spec` names."""
    config, training = jft_worker.configure(spec), WORKS[spec["work"]].kind == "train"
    session = open_session(config)
    tokenizer, decoder = session.tokenizer, session.model.decoder
    if training:
        batches = batches_lib.plan_run(config, tokenizer)
        rounds = [step.sequences for step in batches.packed]
    else:
        rounds = [jft_worker.plan_cell(config, tokenizer, shards=1).sequences]
    wanted = [products(decoder, prefix_tree.count(rows)) for rows in rounds]
    compiled = {product: _program(product, training) for product in itertools.chain(*wanted)}
    turns = itertools.cycle(wanted)

    def do_round() -> list:
        for product in next(turns):
            for _ in range(product.times):
                jax.block_until_ready(compiled[product]())
        return []

    return do_round


def products(decoder: DecoderConfig, counts: prefix_tree.Counts) -> list[Product]:
    """List the products of one forward pass."""
    width, layers = decoder.embed_dim, decoder.num_layers
    heads = decoder.num_heads * decoder.head_dim
    kv_heads = decoder.num_kv_heads * decoder.head_dim
    return [
        Product(counts.row_tokens, heads, width, layers),
        Product(counts.row_tokens, kv_heads, width, 2 * layers),
        Product(counts.row_tokens, width, heads, layers),
        Product(counts.row_tokens, decoder.mlp_dim, width, 2 * layers),
        Product(counts.row_tokens, width, decoder.mlp_dim, layers),
        Product(counts.target_tokens, decoder.vocab_size, width, 1),
    ]


def _program(product: Product, training: bool) -> Callable[[], list[jax.Array]]:
    """Compile a product and, in training, the products of its two gradients."""
    tokens, outputs, inputs, _ = product
    x = jax.random.normal(jax.random.key(0), (tokens, inputs))
    kernel = jax.random.normal(jax.random.key(1), (outputs, inputs))
    grad = jax.random.normal(jax.random.key(2), (tokens, outputs))
    forward = jax.jit(lambda x, kernel: jnp.einsum("ti,oi->to", x, kernel))
    grad_x = jax.jit(lambda grad, kernel: jnp.einsum("to,oi->ti", grad, kernel))
    grad_kernel = jax.jit(lambda grad, x: jnp.einsum("to,ti->oi", grad, x))

    def run() -> list[jax.Array]:
        grads = [grad_x(grad, kernel), grad_kernel(grad, x)] if training else []
        return [forward(x, kernel), *grads]

    jax.block_until_ready(run())
    return run


if __name__ == "__main__":
    worker.serve(prepare)
