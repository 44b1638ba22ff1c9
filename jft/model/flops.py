"""Arithmetic of the decoder: floating-point operations of its matrix products.

A product of [a, b] and [b, c] counts 2 a b c. Attention counts all keys that the programs
compute: of blocks that are seen, and in decoding whatever there is room for.
"""

from __future__ import annotations

from jft.batch import BLOCK, Shape
from jft.model.decoder import DecoderConfig


def forward(config: DecoderConfig, shape: Shape) -> float:
    """One forward pass of one batch, padding included; the head runs on its entries.

    Adapters are merged, as they are in evaluations.
    """
    tokens, entries = shape.rows * shape.row_length, shape.rows * shape.num_entries
    keys = BLOCK * (shape.num_key_blocks + shape.num_prefix_blocks)
    return tokens * _token(config, keys) + entries * _head(config)


def training(config: DecoderConfig, shape: Shape) -> float:
    """Forward and backward over one batch; of what is frozen there are no slopes to compute."""
    tokens, entries = shape.rows * shape.row_length, shape.rows * shape.num_entries
    keys = BLOCK * (shape.num_key_blocks + shape.num_prefix_blocks)
    frozen = 2 if config.adapters else 3
    layer = frozen * _kernels(config) + 3 * (_attention(config, keys) + _adapters(config))
    return tokens * config.num_layers * layer + frozen * entries * _head(config)


def new_token(config: DecoderConfig, keys: int) -> float:
    """One token that is generated, and meets so many keys."""
    return _token(config, keys) + _head(config)


def _token(config: DecoderConfig, keys: int) -> float:
    return config.num_layers * (_kernels(config) + _attention(config, keys))


def _kernels(config: DecoderConfig) -> float:
    heads = config.num_heads * config.head_dim
    projections = config.embed_dim * 2 * (heads + config.num_kv_heads * config.head_dim)
    return 2 * (projections + 3 * config.embed_dim * config.mlp_dim)


def _attention(config: DecoderConfig, keys: int) -> float:
    return 4 * config.num_heads * config.head_dim * keys


def _adapters(config: DecoderConfig) -> float:
    adapters = config.adapters
    if adapters is None:
        return 0.0
    queries, values = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    other = {"query": queries, "key": values, "value": values, "out": queries}
    # Of all of them one side is the embedding.
    sides = sum(config.embed_dim + other.get(name, config.mlp_dim) for name in adapters.targets)
    return 2.0 * adapters.rank * sides


def _head(config: DecoderConfig) -> float:
    return 2 * config.embed_dim * config.vocab_size
