"""Low-rank adapters as arrays: where they begin, and what a projection is with them.

They stand in the parameters beside the kernel that they change, as `adapter`: `down` of the letters
J and the kernel's inputs, `up` of its outputs and J, and DoRA's `magnitude` of its outputs.
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

from jft.model.architecture import Adapters

ADAPTER = "adapter"
# The largest step of an int8 number. Its range is symmetric, so that zero stays zero.
STEPS = 127


def split(params: dict) -> tuple[dict, dict]:
    """What is trained, and what is frozen: adapters and the rest; all and nothing without them."""
    adapters, rest = _part(params, True), _part(params, False)
    return (adapters, rest) if adapters else (rest, {})


def _part(params: dict, adapters: bool) -> dict:
    found = {}
    for name, value in params.items():
        if name == ADAPTER:
            part = value if adapters else {}
        elif isinstance(value, dict):
            part = _part(value, adapters)
        else:
            part = {} if adapters else value
        if not isinstance(part, dict) or part:
            found[name] = part
    return found


def join(trained: dict, frozen: dict) -> dict:
    """The inverse of `split`."""
    both = trained.keys() & frozen.keys()
    return trained | frozen | {name: join(trained[name], frozen[name]) for name in both}


def cast(params: dict, dtype: jnp.dtype) -> dict:
    """In the type to compute in, but for int8 numbers, of which each layer casts its own."""
    return jax.tree.map(lambda x: x if x.dtype == jnp.int8 else x.astype(dtype), params)


def init(shapes: dict, seed: int) -> dict:
    """Adapters that change nothing yet: `up` is zero, `down` uniform as PEFT draws it.

    Drawn by the seed and a parameter's path, so that neither the mesh nor the other targets matter.
    Magnitudes are for `measured` to set.

    Args:
      shapes: the adapters' `jax.ShapeDtypeStruct`s.
      seed: of the drawing.

    Returns:
      NumPy arrays, in float32.
    """

    def draw(path, shape):
        names = [key.key for key in path]
        if names[-1] != "down":
            return np.zeros(shape.shape, np.float32)
        rng = np.random.default_rng([seed, zlib.crc32("/".join(names).encode())])
        bound = math.prod(shape.shape[2:]) ** -0.5
        return rng.uniform(-bound, bound, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def measured(adapters: dict, frozen: dict) -> dict:
    """The adapters with the lengths of the frozen kernels as their magnitudes."""
    if ADAPTER not in adapters:
        return {name: measured(value, frozen[name]) for name, value in adapters.items()}
    adapter = adapters[ADAPTER]
    outputs = adapter["magnitude"].ndim - 1
    found = lax.map(lambda projection: lengths(kernel(projection), outputs), frozen)
    return {ADAPTER: adapter | {"magnitude": found}}


def kernel(projection: dict, adapters: Adapters | None = None) -> jax.Array:
    """A projection's kernel of one layer, in float32, with its adapter where there is one."""
    stored = projection["kernel"]
    plain = dequantize(stored) if isinstance(stored, dict) else stored.astype(jnp.float32)
    if ADAPTER not in projection:
        return plain
    assert adapters
    adapter = jax.tree.map(lambda x: x.astype(jnp.float32), projection[ADAPTER])
    changed = plain + adapters.scale * product_of(adapter)
    if "magnitude" not in adapter:
        return changed
    magnitude = adapter["magnitude"]
    return changed * _over_inputs(ratio(magnitude, lengths(changed, magnitude.ndim)), changed)


def product_of(adapter: dict) -> jax.Array:
    """`up @ down`, shaped as the kernel that it changes."""
    # Exact on accelerators, too: it is small, and models are written with it.
    return jnp.tensordot(adapter["up"], adapter["down"], 1, precision=lax.Precision.HIGHEST)


def lengths(kernel: jax.Array, outputs: int) -> jax.Array:
    """The Euclidean length of the weights of each output, of so many dimensions."""
    return jnp.sqrt(jnp.sum(kernel * kernel, axis=range(outputs, kernel.ndim)))


def ratio(magnitude: jax.Array, lengths: jax.Array) -> jax.Array:
    """By which DoRA stretches each output; one whose weights are all zero has no direction."""
    zero = lengths == 0
    return jnp.where(zero, 1.0, magnitude / jnp.where(zero, 1.0, lengths))


def merge(params: dict, adapters: Adapters, dtype: jnp.dtype) -> dict:
    """The parameters of a decoder without adapters that computes the same, in one type.

    What is given is given up, one array after the other: there may be no room for both.
    """
    if not isinstance(params, dict):
        return cast_away(params, dtype)
    if not is_changed(params):
        return {name: merge(value, adapters, dtype) for name, value in params.items()}
    projection = {name: value for name, value in params.items() if name != "bias"}
    held = jax.tree.leaves(params["kernel"])
    whole = jax.block_until_ready(_merged(adapters, dtype, held[0].sharding)(projection))
    for array in held:
        array.delete()
    bias = {"bias": cast_away(params["bias"], dtype)} if "bias" in params else {}
    return {"kernel": whole} | bias


def is_changed(projection: dict) -> bool:
    """Whether some parameters are a projection whose kernel is not what stands there."""
    return ADAPTER in projection or isinstance(projection.get("kernel"), dict)


@functools.lru_cache
def _merged(adapters: Adapters, dtype: jnp.dtype, layout) -> Callable[[dict], jax.Array]:
    return jax.jit(
        functools.partial(lax.map, lambda node: kernel(node, adapters).astype(dtype)),
        out_shardings=layout,
    )


def cast_away(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """In another type; what it was before is given up."""
    if x.dtype == dtype:
        return x
    cast = jax.block_until_ready(x.astype(dtype))
    x.delete()
    return cast


def quantize(kernel: jax.Array, outputs: int) -> dict:
    """A kernel of one layer as int8 numbers, with a bfloat16 step for each output.

    The step is what the largest weight of the output asks for, rounded up to what bfloat16 has, so
    that the numbers are the nearest to the weights that there are.
    """
    largest = jnp.max(jnp.abs(kernel), axis=range(outputs, kernel.ndim))
    up = jnp.maximum(largest / STEPS, jnp.finfo(jnp.float32).tiny) * (1 + 2**-8)
    # A cast to bfloat16 and back is something that XLA leaves out.
    step = lax.reduce_precision(up, exponent_bits=8, mantissa_bits=7)
    numbers = jnp.round(kernel / _over_inputs(step, kernel))
    return {"int8": numbers.astype(jnp.int8), "step": step.astype(jnp.bfloat16)}


def dequantize(stored: dict) -> jax.Array:
    """The kernel that int8 numbers stand for, in float32."""
    numbers = stored["int8"].astype(jnp.float32)
    return numbers * _over_inputs(stored["step"].astype(jnp.float32), numbers)


def _over_inputs(of_outputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """With dimensions of size one for the kernel's inputs, which come last."""
    return jnp.expand_dims(of_outputs, range(of_outputs.ndim, kernel.ndim))
