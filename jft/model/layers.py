"""The modules of the decoder, declared in Flax NNX: projections, norms, attention, feed-forward.

Architecture: Touvron et al. 2023, arXiv 2302.13971, with the switches of `DecoderConfig` for what
other families have changed; grouped-query attention: Ainslie et al. 2023, arXiv 2305.13245; rotary
position embeddings: Su et al. 2021, arXiv 2104.09864.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from jft.model import lora
from jft.model.architecture import DecoderConfig, Rope
from jft.model.linear import linear, save_for_backward
from jft.model.sharding import constrain

HEAD = "head"

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}

# (query, key, value) of a layer -> (attention output, keys and values for a KV cache or None)
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


class Projection(nnx.Module):
    """A linear map. The letters of its dims give shape, initial scale and sharding at once.

    The config decides whether it has an adapter, and whether its kernel is `Int8`.
    """

    def __init__(
        self, c: DecoderConfig, name: str, inputs: str, outputs: str, bias: bool, rngs: nnx.Rngs
    ):
        self.inputs = len(inputs)
        shape = tuple(map(c.size, inputs + outputs))
        fan_in = int(np.prod(shape[: len(inputs)]))
        kernel = jax.random.normal(rngs.params(), shape) * fan_in**-0.5
        # Drawn with the inputs first; stored with the outputs first, as checkpoints are.
        axes = range(len(shape))
        kernel = kernel.transpose(*axes[self.inputs :], *axes[: self.inputs])
        if c.adapters and c.adapters.base == "int8" and name != HEAD:
            self.kernel: Any = Int8(kernel, outputs, inputs)
        else:
            self.kernel = nnx.Param(kernel, dims=outputs + inputs)
        if bias:
            self.bias = nnx.Param(jnp.zeros(shape[self.inputs :]), dims=outputs)
        if c.adapters and name in c.adapters.targets:
            self.adapter = Adapter(c, outputs, inputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        int8 = isinstance(self.kernel, Int8)
        y = self.kernel(x) if int8 else linear(x, self.kernel[...], self.inputs)
        if hasattr(self, "adapter"):
            y = self.adapter(x, y, to_dict(self.kernel) if int8 else self.kernel[...])
        return y + self.bias[None, None] if hasattr(self, "bias") else y


class Int8(nnx.Module):
    """A kernel of int8 numbers, with a scale for each output."""

    def __init__(self, kernel: jax.Array, outputs: str, inputs: str):
        stored = lora.quantize(kernel, len(outputs))
        self.int8 = nnx.Param(stored["int8"], dims=outputs + inputs)
        self.scale = nnx.Param(stored["scale"], dims=outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        numbers, scale = self.int8[...].astype(x.dtype), self.scale[...]
        return linear(x, numbers, numbers.ndim - scale.ndim) * scale[None, None]


class Adapter(nnx.Module):
    """A trained change of a projection, of low rank; see `Adapters`."""

    def __init__(self, c: DecoderConfig, outputs: str, inputs: str):
        assert c.adapters
        self.c, self.inputs = c.adapters, len(inputs)
        self.down = nnx.Param(jnp.zeros(tuple(map(c.size, "J" + inputs))), dims="J" + inputs)
        self.up = nnx.Param(jnp.zeros(tuple(map(c.size, outputs + "J"))), dims=outputs + "J")
        if c.adapters.dora:
            size = tuple(map(c.size, outputs))
            self.magnitude = nnx.Param(jnp.ones(size), dims=outputs)

    def __call__(self, x: jax.Array, y: jax.Array, kernel) -> jax.Array:
        inner_BTJ = linear(x, self.down[...], self.inputs)
        y = y + self.c.scale * linear(inner_BTJ, self.up[...], 1)
        if not self.c.dora:
            return y
        magnitude, adapter = self.magnitude[...], {"up": self.up[...], "down": self.down[...]}
        # Norms are constants of the backward pass, as DoRA's authors and PEFT have it.
        plain = {"kernel": kernel, lora.ADAPTER: adapter}
        norms = jax.lax.stop_gradient(lora.norms(lora.kernel(plain, self.c), magnitude.ndim))
        return y * lora.norm_ratio(magnitude, norms).astype(y.dtype)[None, None]


class Norm(nnx.Module):
    """Root-mean-square normalization in float32 (Zhang and Sennrich 2019, arXiv 1910.07467).

    It is over the last dimensions of what it is applied to, whose letters are `dims`.
    """

    def __init__(self, c: DecoderConfig, dims: str = "D", rngs: nnx.Rngs | None = None):
        del rngs  # nothing is drawn
        shape = tuple(map(c.size, dims))
        self.scale = nnx.Param(jnp.full(shape, 1.0 - c.norm_offset), dims=dims)
        self.c = c

    def __call__(self, x: jax.Array) -> jax.Array:
        c, scale, x32 = self.c, self.scale[...], x.astype(jnp.float32)
        axes = tuple(range(-scale.ndim, 0))
        mean = jnp.mean(x32 * x32, axis=axes, keepdims=True)
        normal = x32 * jax.lax.rsqrt(mean + c.norm_eps)
        dtype = jnp.float32 if c.norm_float32 else x.dtype
        weight = jnp.expand_dims(scale.astype(dtype), range(x.ndim - scale.ndim))
        if c.norm_offset:
            weight += c.norm_offset
        return (normal.astype(dtype) * weight).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query self-attention along the paths of the prefix trees."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs):
        self.query = Projection(c, "query", "D", "NH", c.qkv_bias, rngs)
        self.key = Projection(c, "key", "D", "KH", c.qkv_bias, rngs)
        self.value = Projection(c, "value", "D", "KH", c.qkv_bias, rngs)
        self.out = Projection(c, "out", "NH", "D", c.out_bias, rngs)
        if c.query_key_norm:
            queries, keys = ("H", "H") if c.query_key_norm == "head" else ("NH", "KH")
            self.query_norm, self.key_norm = Norm(c, queries), Norm(c, keys)

    def __call__(self, x_BTD: jax.Array, rope_2BTH: jax.Array, attend: Attend):
        query_BTNH, key_BTKH = map(save_for_backward, (self.query(x_BTD), self.key(x_BTD)))
        if hasattr(self, "query_norm"):
            query_BTNH, key_BTKH = self.query_norm(query_BTNH), self.key_norm(key_BTKH)
        query_BTNH = constrain(rotate(query_BTNH, rope_2BTH), "BTNH")
        key_BTKH = constrain(rotate(key_BTKH, rope_2BTH), "BTKH")
        value_BTKH = constrain(save_for_backward(self.value(x_BTD)), "BTKH")
        out_BTNH, kv = attend(query_BTNH, key_BTKH, value_BTKH)
        return self.out(out_BTNH), kv


class Mlp(nnx.Module):
    """The gated feed-forward layer (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[c.activation]
        self.gate = Projection(c, "gate", "D", "F", c.mlp_bias, rngs)
        self.up = Projection(c, "up", "D", "F", c.mlp_bias, rngs)
        self.down = Projection(c, "down", "F", "D", c.mlp_bias, rngs)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        gate_BTF, up_BTF = save_for_backward(self.gate(x_BTD)), save_for_backward(self.up(x_BTD))
        return self.down(constrain(self.activation(gate_BTF) * up_BTF, "BTF"))


class Layer(nnx.Module):
    """One residual layer: attention, then the feed-forward layer, each with its norms."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs):
        self.c = c
        if c.norms != "after":
            self.attention_norm, self.mlp_norm = Norm(c), Norm(c)
        if c.norms != "before":
            self.attention_out_norm, self.mlp_out_norm = Norm(c), Norm(c)
        self.attention = Attention(c, rngs)
        self.mlp = Mlp(c, rngs)

    def __call__(self, x_BTD: jax.Array, rope_2BTH: jax.Array, attend: Attend):
        out_BTD, kv = self.attention(self._norm("attention_norm", x_BTD), rope_2BTH, attend)
        x_BTD = save_for_backward(self._add(x_BTD, self._norm("attention_out_norm", out_BTD)))
        out_BTD = self.mlp(self._norm("mlp_norm", x_BTD))
        x_BTD = self._add(x_BTD, self._norm("mlp_out_norm", out_BTD))
        return constrain(x_BTD, "BTD"), kv

    def _norm(self, name: str, x_BTD: jax.Array) -> jax.Array:
        """Apply a norm, if the layer has it."""
        return getattr(self, name)(x_BTD) if hasattr(self, name) else x_BTD

    def _add(self, x_BTD: jax.Array, out_BTD: jax.Array) -> jax.Array:
        if self.c.residual_scale != 1:  # in float32, where the factor is not rounded
            scaled_BTD = out_BTD.astype(jnp.float32) * self.c.residual_scale
            out_BTD = scaled_BTD.astype(out_BTD.dtype)
        return x_BTD + out_BTD


class EmbedAndHead(nnx.Module):
    """The parameters before and after the layers: embedding, final norm, head unless it is tied."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs):
        table_VD = jax.random.normal(rngs.params(), (c.vocab_size, c.embed_dim)) * 0.02
        self.embed = nnx.Param(table_VD, dims="VD")
        self.final_norm = Norm(c)
        if not c.tied_head:
            self.head = Projection(c, HEAD, "D", "V", False, rngs)


def rotary(config: DecoderConfig, positions_BT: jax.Array) -> jax.Array:
    """Compute sine and cosine of the rotary angles of each of `config.ropes`.

    Returns:
      [number of them, 2, B, T, rotated dimensions / 2] in float32.
    """
    dim = config.rotated_dim or config.head_dim
    return jnp.stack([_angles(rope, dim, positions_BT) for rope in config.ropes])


def _angles(rope: Rope | None, dim: int, positions_BT: jax.Array) -> jax.Array:
    if rope is None:  # rotated by nothing
        zeros = jnp.zeros((*positions_BT.shape, dim // 2))
        return jnp.stack([zeros, zeros + 1])
    exponent = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    # Rounded from float64: NumPy's float32 power differs between processors, and at position p the
    # error of an angle is p times that of its frequency.
    frequency_H = 1 / np.power(rope.theta, exponent.astype(np.float64)).astype(np.float32)
    frequency_B1H = jnp.asarray(_divided(frequency_H, rope.factors))[None, None]
    if rope.long_factors:
        is_long_B = positions_BT.max(axis=1) >= rope.long_after
        long_11H = _divided(frequency_H, rope.long_factors)[None, None]
        frequency_B1H = jnp.where(is_long_B[:, None, None], long_11H, frequency_B1H)
    angle_BTH = positions_BT[:, :, None].astype(jnp.float32) * frequency_B1H
    sin_cos_2BTH = jnp.stack([jnp.sin(angle_BTH), jnp.cos(angle_BTH)])
    return sin_cos_2BTH if rope.scale == 1 else sin_cos_2BTH * rope.scale


def _divided(frequency_H: np.ndarray, factors: tuple[float, ...]) -> np.ndarray:
    return frequency_H / np.asarray(factors, np.float32) if factors else frequency_H


def rotate(x_BTNH: jax.Array, rope_2BTH: jax.Array) -> jax.Array:
    """Rotate the pairs (x[i], x[i + R / 2]) of every head by the angles, in float32.

    R is the number of rotated dimensions; those after them stay as they are.
    """
    sin, cos = rope_2BTH[:, :, :, None]
    half = sin.shape[-1]
    first, second, rest = jnp.split(x_BTNH.astype(jnp.float32), (half, 2 * half), axis=-1)
    parts = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(parts, axis=-1).astype(x_BTNH.dtype)


def draw(module: Callable[..., nnx.Module], config: DecoderConfig, key: jax.Array) -> dict:
    """Draw the parameters of a module, as a nested dict."""
    return to_dict(module(config, rngs=nnx.Rngs(params=key)))


def to_dict(module: nnx.Module) -> dict:
    """Return the parameters of a module as a nested dict."""
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


@functools.cache
def declare(
    module: Callable[..., nnx.Module], config: DecoderConfig
) -> tuple[nnx.GraphDef, dict[str, Any]]:
    """Find a module's graph and the dimension letters of its parameters, without drawing them.

    All callers get the same dict of letters, so they must not change it.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))
    letters = {path: leaf.get_metadata("dims") for path, leaf in nnx.to_flat_state(state)}
    return graph, traverse_util.unflatten_dict(letters)


def merge(graph: nnx.GraphDef, params: dict) -> Any:
    """Make a module of its graph and its parameters."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    flat = [(tuple(key.key for key in path), nnx.Param(leaf)) for path, leaf in paths]
    return nnx.merge(graph, nnx.from_flat_state(flat))
