"""Arithmetic of the decoder: parameters and floating-point operations of its matrix products.

A product of [a, b] and [b, c] counts 2 a b c. Attention counts all keys that are computed: those of
visible blocks, and in decoding all that the KV cache has room for.
"""

from __future__ import annotations

from jft.batch import BLOCK, PackingRules, Shape
from jft.model.decoder import DecoderConfig

# FLOPs of training that a device does in the time that compiling a step takes; and in the time that
# a token takes besides its products, which is most of a tiny model's.
COMPILE_FLOPS = {"cpu": 1.6e12, "gpu": 2e15, "tpu": 4e15}
TOKEN_FLOPS = {"cpu": 5e6, "gpu": 1e8, "tpu": 1e8}


def packing_rules(config: DecoderConfig, platform: str) -> PackingRules:
    """Tell what packing has to know of a model on devices of a platform."""
    token = 6 * config.num_layers * layer_parameters(config) + TOKEN_FLOPS[platform]
    return config.packing_rules._replace(shape_tokens=int(COMPILE_FLOPS[platform] / token))


def forward(config: DecoderConfig, shape: Shape) -> float:
    """Count the FLOPs of one forward pass over one micro-batch, padding included.

    The head runs on loss entries only; adapters are merged, as they are in evaluations.
    """
    tokens, entries = shape.rows * shape.row_length, shape.rows * shape.num_entries
    layers = 2 * config.num_layers * layer_parameters(config)
    layers += _attention(config, _keys(config, shape))
    return tokens * layers + 2 * entries * head_parameters(config)


def forward_backward(config: DecoderConfig, shape: Shape, remat: str = "none") -> float:
    """Count the FLOPs of the forward and backward pass over one micro-batch, padding included.

    Gradients are those of the activations and of what is trained, so kernels that are frozen beside
    adapters take two products instead of three. With `remat="full"` the forward pass counts twice.
    """
    tokens, entries = shape.rows * shape.row_length, shape.rows * shape.num_entries
    products = 2 if config.adapters else 3
    layers = 2 * config.num_layers * products * layer_parameters(config)
    layers += 6 * config.num_layers * adapter_parameters(config)
    layers += 3 * _attention(config, _keys(config, shape))
    once = tokens * layers + 2 * products * entries * head_parameters(config)
    return once + (forward(config, shape) if remat == "full" else 0)


def new_token(config: DecoderConfig, keys: int) -> float:
    """Count the FLOPs of generating one token that attends to `keys` keys.

    Layers with a window score them all, too: what is out of the window is masked.
    """
    layers = 2 * config.num_layers * layer_parameters(config)
    layers += _attention(config, config.num_layers * keys)
    return layers + 2 * head_parameters(config)


def parameters(config: DecoderConfig) -> int:
    """Count the numbers of all kernels and the embedding, adapters, norms and biases left out."""
    ends = 1 if config.tied_head else 2
    return config.num_layers * layer_parameters(config) + ends * head_parameters(config)


def layer_parameters(config: DecoderConfig) -> int:
    """Count the numbers in the kernels of one layer, adapters and norms left out."""
    heads = 2 * (config.num_heads + config.num_kv_heads) * config.head_dim
    return config.embed_dim * (heads + 3 * config.mlp_dim)


def head_parameters(config: DecoderConfig) -> int:
    """Count the numbers of the head, which are those of the embedding, too, if it is tied."""
    return config.vocab_size * config.embed_dim


def adapter_parameters(config: DecoderConfig) -> int:
    """Count the numbers in the adapters of one layer, magnitudes left out."""
    adapters = config.adapters
    if adapters is None:
        return 0
    queries, values = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    other = {"query": queries, "key": values, "value": values, "out": queries}
    # One side of every projection is the embedding, the other heads or the feed-forward layer.
    sides = sum(config.embed_dim + other.get(name, config.mlp_dim) for name in adapters.targets)
    return adapters.rank * sides


def _attention(config: DecoderConfig, keys: int) -> int:
    """Count the FLOPs of one query token: scores, and the sum of values.

    `keys` are those that it is scored against, over all layers.
    """
    return 4 * config.num_heads * config.head_dim * keys


def _keys(config: DecoderConfig, shape: Shape) -> int:
    """Count the keys that each query is scored against, over all layers."""
    everywhere = shape.num_key_blocks + shape.num_prefix_blocks
    in_window = dict(shape.window_blocks or ())
    window_L, _ = config.by_layer()
    return BLOCK * sum(in_window.get(config.windows[i], everywhere) for i in window_L)
