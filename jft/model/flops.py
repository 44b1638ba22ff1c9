"""Arithmetic of the decoder: floating-point operations of its matrix products.

A product of [a, b] and [b, c] counts 2 a b c. Attention counts every key of the row, as the
programs compute it.
"""

from __future__ import annotations

from jft.model.decoder import DecoderConfig


def forward(config: DecoderConfig, rows: int, row_length: int, entries: int) -> float:
    """One forward pass.

    Args:
      config: the decoder's shape.
      rows: B.
      row_length: T, padding included.
      entries: M, of each row: where the head runs.
    """
    return rows * row_length * _token(config, row_length) + rows * entries * _head(config)


def decoding_step(config: DecoderConfig, prompts: int, row_length: int) -> float:
    """One new token for each of R prompts that stand in rows of T tokens."""
    return prompts * (_token(config, row_length) + _head(config))


def _token(config: DecoderConfig, keys: int) -> float:
    heads = config.num_heads * config.head_dim
    projections = config.embed_dim * 2 * (heads + config.num_kv_heads * config.head_dim)
    mlp = 3 * config.embed_dim * config.mlp_dim
    return config.num_layers * (2 * (projections + mlp) + 4 * heads * keys)


def _head(config: DecoderConfig) -> float:
    return 2 * config.embed_dim * config.vocab_size
