"""A model to start from or to score: from files, or from the checkpoints of a workdir."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft.checkpoints import model_ref, peft, safetensors_io
from jft.checkpoints.model_ref import Origin
from jft.checkpoints.orbax_steps import Checkpoints
from jft.model import decoder, lora
from jft.model import mesh as mesh_lib
from jft.model.architecture import Adapters

FLOAT32 = jnp.dtype("float32")


def load(
    origin: Origin, mesh: Mesh, dtype: jnp.dtype = FLOAT32
) -> tuple[decoder.DecoderConfig, decoder.Params]:
    """A model's shape and its parameters, adapters merged, laid out over the mesh.

    Each process reads what its devices hold, a layer at a time: there may be no room for more.

    Raises:
      UserError: it is damaged, or adapters to another base than what is there now.
    """
    config, arrays = _arrays(origin, mesh, dtype)
    return config, jax.tree.unflatten(jax.tree.structure(decoder.dims(config)), arrays)


def load_frozen(
    origin: Origin, mesh: Mesh, adapters: Adapters
) -> tuple[decoder.DecoderConfig, decoder.Params]:
    """A model's shape with adapters, and its own parameters, held as these let them be."""
    int8 = adapters.base == "int8"
    plain, arrays = _arrays(origin, mesh, FLOAT32 if int8 else jnp.dtype(adapters.dtype))
    config = replace(plain, adapters=adapters)
    dims = decoder.dims(plain)
    if not int8:
        return config, jax.tree.unflatten(jax.tree.structure(dims), arrays)
    _, layout = lora.split(mesh_lib.param_shardings(mesh, config))
    # One after the other: there may be no room for all of them in float32.
    return config, jax.tree.map(lambda *each: _quantized(next(arrays), *each), dims, layout)


def load_adapted(
    origin: Origin, mesh: Mesh, dtype: jnp.dtype = FLOAT32
) -> tuple[decoder.DecoderConfig, decoder.Params]:
    """A model with adapters as it was trained: its shape with them, and all parameters, apart.

    Where training left it to `model.dtype`, what is frozen is in `dtype`.
    """
    if origin.run:
        adapters = adapters_of(origin.run.lora, dtype)
        assert adapters
    else:
        _, adapters = peft.describe(origin.path, str(dtype))
    config, frozen = load_frozen(model_ref.base_of(origin), mesh, adapters)
    like = jax.tree.map(
        lambda shape, sharding: shape.update(sharding=sharding),
        lora.split(decoder.shapes(config))[0],
        lora.split(mesh_lib.param_shardings(mesh, config))[0],
    )
    if origin.run:
        trained = _restore(origin, like)
    else:
        layout = jax.tree.map(lambda x: x.sharding, like)
        trained = jax.tree.map(mesh_lib.put, peft.read(origin.path, config), layout)
    return config, lora.join(trained, frozen)


def adapters_of(config: config_lib.Lora, dtype: jnp.dtype) -> Adapters | None:
    """What a config asks to be trained instead of all weights, computing in a type."""
    if not config.rank:
        return None
    base = str(dtype) if config.base == "auto" else config.base
    return Adapters(config.rank, config.alpha, config.targets, config.dora, base)


def _arrays(
    origin: Origin, mesh: Mesh, dtype: jnp.dtype
) -> tuple[decoder.DecoderConfig, Iterator[jax.Array]]:
    """A model's shape and its parameters in the order of `decoder.letters`, each when asked for."""
    if model_ref.has_adapters(origin):
        adapted, params = load_adapted(origin, mesh, dtype)
        assert adapted.adapters
        params = lora.merge(params, adapted.adapters, dtype)
        return replace(adapted, adapters=None), iter(jax.tree.leaves(params))
    if origin.run is None:
        config, unread = safetensors_io.find(origin.path)
        layout = mesh_lib.param_shardings(mesh, config)
        place = functools.partial(mesh_lib.put_by_layer, dtype=dtype)
        return config, map(place, *map(jax.tree.leaves, (decoder.dims(config), unread, layout)))
    config = model_ref.read_model(Path(origin.path)).decoder
    like = jax.tree.map(
        lambda shape, sharding: shape.update(sharding=sharding),
        decoder.shapes(config),
        mesh_lib.param_shardings(mesh, config),
    )
    arrays = jax.tree.leaves(_restore(origin, like))
    return config, (lora.astype_donated(x, dtype) for x in arrays)


def _restore(origin: Origin, like: decoder.Params) -> decoder.Params:
    checkpoints = Checkpoints(Path(origin.path), read_only=True)
    return checkpoints.restore({"params": like}, origin.step)["params"]


def _quantized(x: jax.Array, dims: str, layout) -> jax.Array | dict:
    """As it is held in int8; what it was before is given up."""
    if not isinstance(layout, dict):
        return lora.astype_donated(x, jnp.dtype("bfloat16"))
    outputs = 1 if dims.startswith("LD") else len(dims) - 2
    held = jax.block_until_ready(_quantize(outputs, *layout.values())(x))
    x.delete()
    return held


@functools.lru_cache
def _quantize(outputs: int, numbers, scale) -> Callable[[jax.Array], dict]:
    return jax.jit(
        lambda x_L: jax.lax.map(lambda x: lora.quantize(x, outputs), x_L),
        out_shardings={"int8": numbers, "scale": scale},
    )
