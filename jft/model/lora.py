"""Low-rank adapters and int8 kernels as arrays: initial values, merging, quantization.

An adapter lies in the parameters beside the kernel that it changes. The query projection, with int8
numbers for a kernel and a DoRA adapter, in one layer:

    kernel    int8_NHD, scale_NH
    adapter   down_JD, up_NHJ, magnitude_NH
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jft.model import dither
from jft.model.architecture import Adapters

ADAPTER = "adapter"
# The largest int8 number in use. The range is symmetric, so that zero stays zero.
INT8_MAX = 127


def split(params: dict) -> tuple[dict, dict]:
    """Split parameters into what is trained and what is frozen.

    Adapters are trained and the rest is frozen. Without adapters, everything is trained.
    """
    adapters, rest = _select(params, True), _select(params, False)
    return (adapters, rest) if adapters else (rest, {})


def _select(params: dict, adapters: bool) -> dict:
    """Take the adapters, or all but the adapters, without the dicts that are left empty."""
    found = {}
    for name, value in params.items():
        if name == ADAPTER:
            selected = value if adapters else {}
        elif isinstance(value, dict):
            selected = _select(value, adapters)
        else:
            selected = {} if adapters else value
        if not isinstance(selected, dict) or selected:
            found[name] = selected
    return found


def join(trained: dict, frozen: dict) -> dict:
    """Join what `split` returns."""
    both = trained.keys() & frozen.keys()
    return trained | frozen | {name: join(trained[name], frozen[name]) for name in both}


def cast(params: dict, dtype: jnp.dtype) -> dict:
    """Cast to the type to compute in; int8 numbers stay, since each layer casts its own."""

    def of_one(path, x):
        return x if x.dtype == jnp.int8 else dither.astype(x, dtype, name_of(path))

    return jax.tree_util.tree_map_with_path(of_one, params)


def name_of(path: tuple) -> str:
    """Name a parameter by its path in a dict of them, such as `layers.mlp.gate.kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def init(shapes: dict, seed: int) -> dict:
    """Draw adapters that change nothing yet, as NumPy arrays in float32.

    `up` is zero, and `down` uniform as in PEFT. Each parameter is drawn by the seed and its own
    path, so that neither the mesh nor the other targets matter. `init_magnitudes` sets magnitudes.

    Args:
      shapes: the adapters' `jax.ShapeDtypeStruct`s.
      seed: any integer from 0.
    """

    def draw(path, shape):
        names = [key.key for key in path]
        if names[-1] != "down":
            return np.zeros(shape.shape, np.float32)
        rng = np.random.default_rng([seed, zlib.crc32("/".join(names).encode())])
        bound = math.prod(shape.shape[2:]) ** -0.5
        return rng.uniform(-bound, bound, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def init_magnitudes(adapters: dict, frozen: dict) -> dict:
    """Return DoRA adapters with the norms of the frozen kernels as their magnitudes."""
    if ADAPTER not in adapters:
        return {name: init_magnitudes(value, frozen[name]) for name, value in adapters.items()}
    adapter = adapters[ADAPTER]
    outputs = adapter["magnitude"].ndim - 1  # without the axis of layers
    magnitude = lax.map(lambda projection: norms(kernel(projection), outputs), frozen)
    return {ADAPTER: adapter | {"magnitude": magnitude}}


def kernel(projection: dict, adapters: Adapters | None = None) -> jax.Array:
    """Compute the kernel of a projection of one layer, in float32, with its adapter if any."""
    stored = projection["kernel"]
    plain = dequantize(stored) if isinstance(stored, dict) else stored.astype(jnp.float32)
    if ADAPTER not in projection:
        return plain
    assert adapters
    adapter = jax.tree.map(lambda x: x.astype(jnp.float32), projection[ADAPTER])
    changed = plain + adapters.scale * low_rank_update(adapter)
    if "magnitude" not in adapter:
        return changed
    magnitude = adapter["magnitude"]
    ratio = norm_ratio(magnitude, norms(changed, magnitude.ndim))
    return changed * _expand_inputs(ratio, changed)


def low_rank_update(adapter: dict) -> jax.Array:
    """Compute `up @ down`, in the shape of the kernel that it changes."""
    # Exact on accelerators, too: it is small, and models are written with it.
    return jnp.tensordot(adapter["up"], adapter["down"], 1, precision=lax.Precision.HIGHEST)


def norms(kernel: jax.Array, outputs: int) -> jax.Array:
    """Compute the Euclidean norm of the weights of each output; the first `outputs` axes stay."""
    return jnp.sqrt(jnp.sum(kernel * kernel, axis=range(outputs, kernel.ndim)))


def norm_ratio(magnitude: jax.Array, norms: jax.Array) -> jax.Array:
    """Compute the factor by which DoRA scales each output; 1 where all its weights are zero."""
    zero = norms == 0
    # The inner `where` keeps 0 / 0 out of the gradient.
    return jnp.where(zero, 1.0, magnitude / jnp.where(zero, 1.0, norms))


def merge(params: dict, adapters: Adapters, dtype: jnp.dtype, path: tuple[str, ...] = ()) -> dict:
    """Compute the parameters of a decoder without adapters that computes the same, in one type.

    The given arrays are deleted, one after the other: there may be no room for both models. `path`
    is that of `params` in the whole.
    """
    if not isinstance(params, dict):
        return astype_donated(params, dtype, ".".join(path))
    if not has_adapter_or_int8(params):
        return {name: merge(x, adapters, dtype, (*path, name)) for name, x in params.items()}
    projection = {name: value for name, value in params.items() if name != "bias"}
    held = jax.tree.leaves(params["kernel"])
    name = ".".join((*path, "kernel"))
    merging = _merged(adapters, dtype, name, held[0].sharding)
    whole = jax.block_until_ready(merging(jnp.arange(len(held[0])), projection))
    for array in held:
        array.delete()
    if "bias" not in params:
        return {"kernel": whole}
    return {
        "kernel": whole,
        "bias": astype_donated(params["bias"], dtype, ".".join((*path, "bias"))),
    }


def has_adapter_or_int8(params: dict) -> bool:
    """Check whether some parameters are a projection whose kernel has to be computed."""
    return ADAPTER in params or isinstance(params.get("kernel"), dict)


@functools.lru_cache
def _merged(adapters: Adapters, dtype: jnp.dtype, name: str, layout) -> Callable[..., jax.Array]:
    """Compile the merging of one projection of all layers, layer by layer."""

    def merge_layer(of_layer):
        layer, projection = of_layer
        return dither.astype(kernel(projection, adapters), dtype, name, layer)

    return jax.jit(lambda *layers: lax.map(merge_layer, layers), out_shardings=layout)


def astype_donated(x: jax.Array, dtype: jnp.dtype, name: str) -> jax.Array:
    """Cast a parameter and delete the original: there may be no room for both."""
    if x.dtype == dtype:
        return x
    cast = jax.block_until_ready(dither.astype(x, dtype, name))
    x.delete()
    return cast


def quantize(kernel: jax.Array, outputs: int) -> dict:
    """Round the kernel of one layer to int8 numbers, with a bfloat16 scale for each output.

    The scale maps the largest weight of the output to `INT8_MAX` or a little less: it is rounded up
    to bfloat16 before the weights are divided by it, so that each number is nearest to its weight.

    Args:
      kernel: float32, outputs first.
      outputs: the number of its output axes.

    Returns:
      `int8`, shaped as the kernel, and `scale`, shaped as its outputs.
    """
    largest = jnp.max(jnp.abs(kernel), axis=range(outputs, kernel.ndim))
    above = jnp.maximum(largest / INT8_MAX, jnp.finfo(jnp.float32).tiny) * (1 + 2**-8)
    # XLA would leave out a cast to bfloat16 and back.
    scale = lax.reduce_precision(above, exponent_bits=8, mantissa_bits=7)
    numbers = jnp.round(kernel / _expand_inputs(scale, kernel))
    return {"int8": numbers.astype(jnp.int8), "scale": scale.astype(jnp.bfloat16)}


def dequantize(stored: dict) -> jax.Array:
    """Compute the float32 kernel of what `quantize` returns."""
    numbers = stored["int8"].astype(jnp.float32)
    return numbers * _expand_inputs(stored["scale"].astype(jnp.float32), numbers)


def _expand_inputs(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Append axes of size one for the inputs of the kernel to an array shaped as its outputs."""
    return jnp.expand_dims(x, range(x.ndim, kernel.ndim))
