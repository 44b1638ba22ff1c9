"""Weights onto a mesh: from files or a checkpoint, cast, quantized, merged with adapters.

Functions that yield arrays do so in the order of `decoder.dims`, one at a time: memory may have no
room for more than one in another type than the one that it is held in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jft import config as config_lib
from jft.checkpoints import safetensors_io
from jft.checkpoints.orbax_steps import Checkpoints
from jft.model import decoder, lora
from jft.model import mesh as mesh_lib
from jft.model.architecture import Adapters, DecoderConfig
from jft.model.decoder import Params

FLOAT32 = jnp.dtype("float32")

# A decoder's shape, and parameters laid out over a mesh.
Model = tuple[DecoderConfig, Params]


def adapters_of(config: config_lib.Lora, dtype: jnp.dtype) -> Adapters | None:
    """Describe the adapters that a config trains; None where it trains all weights.

    Args:
      config: the section `lora`.
      dtype: the type to compute in, in which `lora.base=auto` holds the frozen weights.
    """
    if not config.rank:
        return None
    base = str(dtype) if config.base == "auto" else config.base
    return Adapters(config.rank, config.alpha, config.targets, config.dora, base)


def from_files(
    path: str, mesh: Mesh, dtype: jnp.dtype
) -> tuple[DecoderConfig, Iterator[jax.Array]]:
    """Read a Hugging Face folder, a hub id or a GGUF file.

    Each process reads what its devices hold, one layer at a time.

    Returns:
      The decoder's shape, and its parameters in `dtype`, each read when it is asked for.

    Raises:
      UserError: nothing is there, or it is damaged.
    """
    config, unread, _ = safetensors_io.open_weights(path)
    layout, dims = mesh_lib.param_shardings(mesh, config), decoder.dims(config)
    rounded = dtype != jnp.bfloat16 or safetensors_io.dtype_of(path) == "bfloat16"
    place = functools.partial(mesh_lib.put_by_layer, dtype=dtype, rounded=rounded)
    return config, map(place, _names(dims), *map(jax.tree.leaves, (dims, unread, layout)))


def from_checkpoint(
    workdir: Path, step: int, config: DecoderConfig, mesh: Mesh, dtype: jnp.dtype
) -> Iterator[jax.Array]:
    """Restore all parameters of a checkpoint, in `dtype`.

    Raises:
      UserError: it is damaged.
    """
    params = restore(workdir, step, sharded_shapes(config, mesh))
    pairs = zip(jax.tree.leaves(params), _names(params), strict=True)
    return (lora.astype_donated(x, dtype, name) for x, name in pairs)


def _names(params: Params) -> list[str]:
    """Name all parameters, in the order of their leaves."""
    return [lora.name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def restore(workdir: Path, step: int, like: Params) -> Params:
    """Restore the parameters that `like` has, as `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      UserError: the checkpoint is damaged, or holds other parameters.
    """
    checkpoints = Checkpoints(workdir, read_only=True)
    return checkpoints.restore({"params": like}, step)["params"]


def sharded_shapes(config: DecoderConfig, mesh: Mesh) -> Params:
    """The parameters as `jax.ShapeDtypeStruct`s with shardings."""
    return jax.tree.map(
        lambda shape, sharding: shape.update(sharding=sharding),
        decoder.shapes(config),
        mesh_lib.param_shardings(mesh, config),
    )


def in_tree(config: DecoderConfig, arrays: Iterable[jax.Array]) -> Params:
    """Arrange arrays, in the order of `decoder.dims`, as parameters."""
    return jax.tree.unflatten(jax.tree.structure(decoder.dims(config)), arrays)


def merged(model: Model, dtype: jnp.dtype) -> tuple[DecoderConfig, Iterator[jax.Array]]:
    """Merge adapters into the kernels that they change; the buffers of `model` are donated."""
    config, params = model
    assert config.adapters
    params = lora.merge(params, config.adapters, dtype)
    return replace(config, adapters=None), iter(jax.tree.leaves(params))


def frozen(
    plain: DecoderConfig, arrays: Iterator[jax.Array], mesh: Mesh, adapters: Adapters
) -> Model:
    """Hold a base as its adapters want it: in `adapters.dtype`, or kernels as int8 with scales.

    Args:
      plain: the shape of the base.
      arrays: its parameters; for int8 in float32.
      mesh: where they lie.
      adapters: what is trained beside them.

    Returns:
      The shape with adapters, and the frozen parameters.
    """
    config = replace(plain, adapters=adapters)
    if adapters.base != "int8":
        return config, in_tree(plain, arrays)
    _, layout = lora.split(mesh_lib.param_shardings(mesh, config))

    def quantized(path, dims, layout):
        return _quantized(next(arrays), lora.name_of(path), dims, layout)

    return config, jax.tree_util.tree_map_with_path(quantized, decoder.dims(plain), layout)


def _quantized(x: jax.Array, name: str, dims: str, layout) -> jax.Array | dict:
    """Quantize a kernel, or cast what is none to bfloat16; the buffer of `x` is donated."""
    if not isinstance(layout, dict):
        return lora.astype_donated(x, jnp.dtype("bfloat16"), name)
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
