"""The decoder: pure functions of a dict of parameters, from tokens to log-probabilities.

Parameters are a plain nested dict with the layers stacked on axis 0. One compiled layer serves all:
what layers differ in besides parameters, windows and rotary embeddings, is indexed by layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp

from jft.batch import Array, Batch
from jft.model import attention, lora, sharding
from jft.model.architecture import DecoderConfig
from jft.model.layers import EmbedAndHead, Layer, Norm, declare, draw, merge, rotary
from jft.model.linear import REMAT_POLICIES, map_chunks, matmul_of_few
from jft.model.scores import Scores, soft_cap
from jft.model.sharding import constrain, gather

# Logits that a device holds at once: 1 GB. Chunks compute the head's forward pass twice.
CHUNK_LOGITS = 1 << 28

Params = dict  # nested: name -> array or Params
Cache = tuple[jax.Array, jax.Array]  # keys_LBTKH and values_LBTKH


@functools.partial(jax.jit, static_argnums=0)
def init(config: DecoderConfig, key: jax.Array) -> Params:
    """Draw float32 parameters: kernels of unit output variance, norms 1, biases 0.

    Adapters change nothing yet; beside them, frozen parameters have the type of `Adapters.base`.
    """
    outer_key, layers_key = jax.random.split(key)
    layer_keys = jax.random.split(layers_key, config.num_layers)
    outer = draw(EmbedAndHead, config, outer_key)
    layers = jax.vmap(functools.partial(draw, Layer, config))(layer_keys)
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
    _, outer = declare(EmbedAndHead, config)
    _, layer = declare(Layer, config)
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
    run, scores = layer(config), Scores.of(config)
    x_BTD, ropes = embed(config, params, batch.tokens_BT, batch.positions_BT)
    mask = attention.block_mask(batch, config, x_BTD.dtype)

    def body(x_BTD, of_layer):
        layer_params, window, rope = of_layer

        def attend(query_BTNH, key_BTKH, value_BTKH):
            out_BTNH = attention.attend(query_BTNH, key_BTKH, value_BTKH, mask, scores, window)
            return out_BTNH, (key_BTKH, value_BTKH) if keep_cache else None

        return run(layer_params, x_BTD, pick(ropes, rope), attend)

    body = jax.checkpoint(body, policy=REMAT_POLICIES[remat], prevent_cse=False)
    x_BTD, cache = jax.lax.scan(body, x_BTD, (params["layers"], *config.by_layer()))
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
    graph, letters = declare(Layer, config)

    def run(params, x_BTD, rope_2BTH, attend):
        return merge(graph, jax.tree.map(gather, letters, params))(x_BTD, rope_2BTH, attend)

    return run


def embed(
    config: DecoderConfig, params: Params, tokens_BT, positions_BT
) -> tuple[jax.Array, jax.Array]:
    """Compute the input of the first layer, x_BTD, and the angles of `config.ropes`."""
    x_BTD = constrain(params["embed"][tokens_BT], "BTD", sharding.LOOKED_UP)
    if config.embed_scale != 1:  # rounded to the type of the activations, as Gemma's authors do
        x_BTD = x_BTD * jnp.asarray(config.embed_scale, x_BTD.dtype)
    return constrain(x_BTD, "BTD"), rotary(config, jnp.asarray(positions_BT))


def pick(values: jax.Array, index: jax.Array) -> jax.Array:
    """Take one of some values that layers share; where there is only one, without a look."""
    return values[0] if len(values) == 1 else values[index]


def final_norm(config: DecoderConfig, params: Params, x_BTD: jax.Array) -> jax.Array:
    """Apply the norm that follows the last layer."""
    graph, letters = declare(Norm, config)
    return merge(graph, jax.tree.map(gather, letters, params["final_norm"]))(x_BTD)


def logits(
    config: DecoderConfig, params: Params, hidden_BMD: jax.Array, few: bool = False
) -> jax.Array:
    """Apply the head: float32 logits of the whole vocabulary, [B, M, V].

    `few` is for decoding, where there is one row a slot; its gradient would be slow.
    """
    head_VD = gather("VD", params["embed"] if config.tied_head else params["head"]["kernel"])
    if few:
        of_all = matmul_of_few(hidden_BMD.reshape(-1, config.embed_dim), head_VD, jnp.float32)
        logits_BMV = of_all.reshape(*hidden_BMD.shape[:2], -1)
    else:
        logits_BMV = jnp.einsum(
            "BMD,VD->BMV", hidden_BMD, head_VD, preferred_element_type=jnp.float32
        )
    if config.logit_scale != 1:
        logits_BMV = logits_BMV * config.logit_scale
    return constrain(soft_cap(logits_BMV, config.logit_cap), "BMV")
