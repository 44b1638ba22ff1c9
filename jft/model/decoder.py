"""The Llama-family decoder: modules declared in Flax NNX, used as pure functions of a dict.

Parameters are a plain nested dict with the layers stacked on axis 0; `flax.nnx` is imported here
and nowhere else. Architecture: Touvron et al. 2023, arXiv 2302.13971; grouped-query attention:
Ainslie et al. 2023, arXiv 2305.13245.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from jft.batch import Array, Batch
from jft.model import attention, lora, sharding
from jft.model.architecture import DecoderConfig
from jft.model.linear import REMAT_POLICIES, linear, map_chunks, save_for_backward
from jft.model.rotary import rotary, rotate
from jft.model.sharding import constrain, gather

# Logits that a device holds at once: 1 GB. Chunks compute the head's forward pass twice.
CHUNK_LOGITS = 1 << 28

HEAD = "head"

Params = dict  # nested: name -> array or Params
Cache = tuple[jax.Array, jax.Array]  # keys_LBTKH and values_LBTKH
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
            y = self.adapter(x, y, _dict(self.kernel) if int8 else self.kernel[...])
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
    """Root-mean-square normalization in float32 (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs | None = None):
        del rngs  # nothing is drawn
        self.scale = nnx.Param(jnp.ones(c.embed_dim), dims="D")
        self.eps = c.norm_eps

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x32_BTD = x_BTD.astype(jnp.float32)
        mean_BT1 = jnp.mean(x32_BTD * x32_BTD, axis=-1, keepdims=True)
        normal_BTD = (x32_BTD * jax.lax.rsqrt(mean_BT1 + self.eps)).astype(x_BTD.dtype)
        return normal_BTD * self.scale[None, None]


class Attention(nnx.Module):
    """Grouped-query self-attention along the paths of the prefix trees."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs):
        self.query = Projection(c, "query", "D", "NH", c.attention_bias, rngs)
        self.key = Projection(c, "key", "D", "KH", c.attention_bias, rngs)
        self.value = Projection(c, "value", "D", "KH", c.attention_bias, rngs)
        self.out = Projection(c, "out", "NH", "D", c.attention_bias, rngs)

    def __call__(self, x_BTD: jax.Array, rope_2BTH: jax.Array, attend: Attend):
        query_BTNH = constrain(rotate(save_for_backward(self.query(x_BTD)), rope_2BTH), "BTNH")
        key_BTKH = constrain(rotate(save_for_backward(self.key(x_BTD)), rope_2BTH), "BTKH")
        value_BTKH = constrain(save_for_backward(self.value(x_BTD)), "BTKH")
        out_BTNH, kv = attend(query_BTNH, key_BTKH, value_BTKH)
        return self.out(out_BTNH), kv


class Mlp(nnx.Module):
    """The gated feed-forward layer (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs):
        self.gate = Projection(c, "gate", "D", "F", c.mlp_bias, rngs)
        self.up = Projection(c, "up", "D", "F", c.mlp_bias, rngs)
        self.down = Projection(c, "down", "F", "D", c.mlp_bias, rngs)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        gate_BTF, up_BTF = save_for_backward(self.gate(x_BTD)), save_for_backward(self.up(x_BTD))
        return self.down(constrain(jax.nn.silu(gate_BTF) * up_BTF, "BTF"))


class Layer(nnx.Module):
    """One pre-norm residual layer."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs):
        self.attention_norm = Norm(c)
        self.attention = Attention(c, rngs)
        self.mlp_norm = Norm(c)
        self.mlp = Mlp(c, rngs)

    def __call__(self, x_BTD: jax.Array, rope_2BTH: jax.Array, attend: Attend):
        out_BTD, kv = self.attention(self.attention_norm(x_BTD), rope_2BTH, attend)
        x_BTD = save_for_backward(x_BTD + out_BTD)
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return constrain(x_BTD, "BTD"), kv


class EmbedAndHead(nnx.Module):
    """The parameters before and after the layers: embedding, final norm, head unless it is tied."""

    def __init__(self, c: DecoderConfig, rngs: nnx.Rngs):
        table_VD = jax.random.normal(rngs.params(), (c.vocab_size, c.embed_dim)) * 0.02
        self.embed = nnx.Param(table_VD, dims="VD")
        self.final_norm = Norm(c)
        if not c.tied_head:
            self.head = Projection(c, HEAD, "D", "V", False, rngs)


@functools.partial(jax.jit, static_argnums=0)
def init(config: DecoderConfig, key: jax.Array) -> Params:
    """Draw float32 parameters: kernels of unit output variance, norms 1, biases 0.

    Adapters change nothing yet; beside them, frozen parameters have the type of `Adapters.base`.
    """
    outer_key, layers_key = jax.random.split(key)
    layer_keys = jax.random.split(layers_key, config.num_layers)
    outer = _dict(EmbedAndHead(config, rngs=nnx.Rngs(params=outer_key)))
    layers = jax.vmap(lambda key: _dict(Layer(config, rngs=nnx.Rngs(params=key))))(layer_keys)
    params = outer | {"layers": layers}
    if not config.adapters:
        return params
    trained, frozen = lora.split(params)
    return lora.join(trained, lora.cast(frozen, jnp.dtype(config.adapters.dtype)))


def shapes(config: DecoderConfig) -> Params:
    """Return the parameters of `init` as `jax.ShapeDtypeStruct`s."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def dims(config: DecoderConfig) -> Params:
    """Return the dimension letters of every parameter, such as `LNHD`, structured as `init`."""
    _, outer = _declare(EmbedAndHead, config)
    _, layer = _declare(Layer, config)
    return outer | {"layers": jax.tree.map("L{}".format, layer)}


@overload
def apply(config: DecoderConfig, params: Params, batch: Batch, remat: str = ...) -> jax.Array: ...
@overload
def apply(
    config: DecoderConfig, params: Params, batch: Batch, *, keep_cache: Literal[True]
) -> tuple[jax.Array, Cache]: ...
def apply(config, params, batch, remat="attention", keep_cache=False):
    """Compute the normed hidden states, [B, T, D], in the type of the parameters.

    Args:
      config: the decoder's shape.
      params: as `init` returns them; computing in bfloat16 means casting them first.
      batch: of which tokens, positions and visibility are read.
      remat: one of `REMAT_POLICIES`, which says what the backward pass computes again.
      keep_cache: return also the keys and values of every layer, (hidden_BTD, `Cache`).
    """
    mask = attention.block_mask(batch, config.num_heads, config.head_dim)

    def attend(query_BTNH, key_BTKH, value_BTKH):
        out_BTNH = attention.attend(query_BTNH, key_BTKH, value_BTKH, mask)
        return out_BTNH, (key_BTKH, value_BTKH) if keep_cache else None

    run = layer(config)
    x_BTD, rope_2BTH = embed(config, params, batch.tokens_BT, batch.positions_BT)

    def body(x_BTD, layer_params):
        return run(layer_params, x_BTD, rope_2BTH, attend)

    body = jax.checkpoint(body, policy=REMAT_POLICIES[remat], prevent_cse=False)
    x_BTD, cache = jax.lax.scan(body, x_BTD, params["layers"])
    hidden_BTD = final_norm(config, params, x_BTD)
    return (hidden_BTD, cache) if keep_cache else hidden_BTD


def token_logprobs(
    config: DecoderConfig, params: Params, batch: Batch, remat: str = "attention"
) -> jax.Array:
    """Compute the log-probability of every loss target, [B, M] in float32.

    Training sums them by weight, evaluation by sequence.
    """
    hidden_BMD = entry_hidden(apply(config, params, batch, remat), batch)
    return map_entries(config, params, hidden_BMD, batch.loss_target_BM, target_logprobs)


def map_entries(
    config: DecoderConfig, params: Params, hidden_BMD: jax.Array, target_BM: Array, of: Callable
) -> Any:
    """Apply `of` to the logits, [B, M, V], and the targets, [B, M], of all loss entries.

    It returns arrays [B, M, ...]. If all logits take more memory than `CHUNK_LOGITS`, they are
    computed in chunks, and again in the backward pass.
    """
    size = sharding.local_size("BMV", (*target_BM.shape, config.vocab_size))

    def values(hidden_BCD, target_BC):
        return of(logits(config, params, hidden_BCD), target_BC)

    return map_chunks(values, -(-size // CHUNK_LOGITS), hidden_BMD, target_BM)


def entry_logits(
    config: DecoderConfig, params: Params, batch: Batch, remat: str = "attention"
) -> jax.Array:
    """Compute the logits of every loss entry, [B, M, V] in float32; of no other position."""
    return logits(config, params, entry_hidden(apply(config, params, batch, remat), batch))


def entry_hidden(hidden_BTD: jax.Array, batch: Batch) -> jax.Array:
    """Take the hidden states of the loss entries, [B, M, D]."""
    return jnp.take_along_axis(hidden_BTD, batch.loss_index_BM[..., None], axis=1)


def target_logprobs(logits_BMV: jax.Array, target_BM) -> jax.Array:
    """Compute the log-probability of each target, [B, M], under the logits of its entry."""
    target_BM1 = jnp.take_along_axis(logits_BMV, target_BM[..., None], axis=-1)
    return target_BM1[..., 0] - jax.nn.logsumexp(logits_BMV, axis=-1)


def layer(config: DecoderConfig) -> Callable[..., tuple[jax.Array, Any]]:
    """Make a pure function of one layer: (its params, x_BTD, rope_2BTH, attend) -> (x_BTD, kv).

    `attend` computes attention, and so decides which keys a query sees; it returns `kv`, too.
    """
    graph, letters = _declare(Layer, config)

    def run(params, x_BTD, rope_2BTH, attend):
        return _merge(graph, jax.tree.map(gather, letters, params))(x_BTD, rope_2BTH, attend)

    return run


def embed(
    config: DecoderConfig, params: Params, tokens_BT, positions_BT
) -> tuple[jax.Array, jax.Array]:
    """Compute the input of the first layer, x_BTD, and the rotary angles, rope_2BTH."""
    x_BTD = constrain(params["embed"][tokens_BT], "BTD", sharding.LOOKED_UP)
    return constrain(x_BTD, "BTD"), rotary(config, jnp.asarray(positions_BT))


def final_norm(config: DecoderConfig, params: Params, x_BTD: jax.Array) -> jax.Array:
    """Apply the norm that follows the last layer."""
    graph, letters = _declare(Norm, config)
    return _merge(graph, jax.tree.map(gather, letters, params["final_norm"]))(x_BTD)


def logits(config: DecoderConfig, params: Params, hidden_BMD: jax.Array) -> jax.Array:
    """Apply the head: float32 logits of the whole vocabulary, [B, M, V]."""
    head_VD = gather("VD", params["embed"] if config.tied_head else params["head"]["kernel"])
    logits_BMV = jnp.einsum("BMD,VD->BMV", hidden_BMD, head_VD, preferred_element_type=jnp.float32)
    return constrain(logits_BMV, "BMV")


@functools.cache
def _declare(
    module: Callable[..., nnx.Module], config: DecoderConfig
) -> tuple[nnx.GraphDef, Params]:
    """Find a module's graph and the dimension letters of its parameters, without drawing them.

    All callers get the same dict of letters, so they must not change it.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))
    letters = {path: leaf.get_metadata("dims") for path, leaf in nnx.to_flat_state(state)}
    return graph, traverse_util.unflatten_dict(letters)


def _dict(module: nnx.Module) -> Params:
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


def _merge(graph: nnx.GraphDef, params: Params):
    return nnx.merge(graph, nnx.from_flat_state(_flat(params)))


def _flat(params: Params) -> list:
    paths = jax.tree_util.tree_leaves_with_path(params)
    return [(tuple(key.key for key in path), nnx.Param(leaf)) for path, leaf in paths]
