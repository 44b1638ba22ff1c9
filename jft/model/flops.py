"""Arithmetic of the decoder: floating-point operations of its matrix products.

A product of [a, b] and [b, c] counts 2 a b c. Attention counts all keys that the programs
compute: of blocks that are seen, and in decoding whatever there is room for.
"""

from __future__ import annotations

from jft.batch import BLOCK, Shape
from jft.model.decoder import DecoderConfig


def forward(config: DecoderConfig, shape: Shape) -> float:
    """One forward pass of one batch, padding included; the head runs on its entries."""
    tokens, entries = shape.rows * shape.row_length, shape.rows * shape.num_entries
    keys = BLOCK * (shape.num_key_blocks + shape.num_trunk_blocks)
    return tokens * _token(config, keys) + entries * _head(config)


def new_token(config: DecoderConfig, keys: int) -> float:
    """One token that is generated, and meets so many keys."""
    return _token(config, keys) + _head(config)


def _token(config: DecoderConfig, keys: int) -> float:
    heads = config.num_heads * config.head_dim
    projections = config.embed_dim * 2 * (heads + config.num_kv_heads * config.head_dim)
    mlp = 3 * config.embed_dim * config.mlp_dim
    return config.num_layers * (2 * (projections + mlp) + 4 * heads * keys)


def _head(config: DecoderConfig) -> float:
    return 2 * config.embed_dim * config.vocab_size
