"""Linear maps: the product of activations with a kernel, and what is saved for the backward pass.

Kernels have their output dimensions first, as checkpoints on the Hugging Face hub do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# With at most so many tokens the kernel is the large factor of a product.
FEW_TOKENS = 64

_SAVED = "saved"

# Rematerialization by the names of `train.remat`: save everything; or matrix products, since what
# lies between them is cheap to compute again; or only the input of each layer.
REMAT_POLICIES = {
    "none": jax.checkpoint_policies.everything_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names(_SAVED),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def save_for_backward(x: jax.Array) -> jax.Array:
    """Mark an array to be saved by `train.remat=attention`, since it is expensive to compute."""
    return checkpoint_name(x, _SAVED)


def linear(x: jax.Array, kernel: jax.Array, num_inputs: int) -> jax.Array:
    """Contract the last `num_inputs` axes of `x` with those of `kernel`.

    Example: x_BTD and kernel_NHD give [B, T, N, H] with one input axis.
    """
    leading, outputs = x.shape[: x.ndim - num_inputs], kernel.shape[: kernel.ndim - num_inputs]
    width = math.prod(kernel.shape[kernel.ndim - num_inputs :])
    y = matmul(x.reshape(-1, width), kernel.reshape(-1, width))
    return y.reshape(*leading, *outputs)


def map_chunks(of: Callable[..., Any], chunks: int, *x_BM: Any) -> Any:
    """Apply a function to arrays [B, M, ...] in chunks along M, one after the other.

    Args:
      of: makes arrays [B, C, ...] of chunks; in the backward pass they are computed again.
      chunks: the number of them; 1: all at once, and nothing is computed again.
      x_BM: the arrays.
    """
    if chunks == 1:
        return of(*x_BM)
    rows, entries = x_BM[0].shape[:2]
    size = -(-entries // chunks)
    chunks = -(-entries // size)

    def split(x_BM):
        """Cut [B, M, ...] to [A, B, C, ...]: `lax.map` loops over axis 0."""
        fill = [(0, 0)] * x_BM.ndim
        fill[1] = (0, chunks * size - entries)
        return jnp.pad(x_BM, fill).reshape(rows, chunks, size, *x_BM.shape[2:]).swapaxes(0, 1)

    found_ABC = jax.lax.map(lambda each: jax.checkpoint(of)(*each), tuple(map(split, x_BM)))
    return jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(rows, -1, *x.shape[3:])[:, :entries], found_ABC
    )


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Compute `x @ kernel.T`, with gradients as products of matrices that are not transposed.

    JAX computes the kernel's gradient as the transpose of a product. XLA:CPU fuses that
    transposition with the operation before it, and then reads whole activations column by column.
    """
    return _matmul(x, kernel) if len(x) > FEW_TOKENS else matmul_of_few(x, kernel)


def matmul_of_few(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """Compute `x @ kernel.T` for few rows of `x`, in `dtype` or that of the factors."""

    def on_cpu(x, kernel):
        # XLA:CPU packs the second matrix of a product before it begins, so the small one goes
        # second. Without the barriers it would recognize the same product and swap them back.
        barrier = jax.lax.optimization_barrier
        return barrier(jnp.matmul(kernel, barrier(x.T), preferred_element_type=dtype)).T

    elsewhere = functools.partial(_matmul, dtype=dtype)
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _matmul(x, kernel, dtype=None):
    return jax.lax.dot_general(x, kernel, (((1,), (1,)), ((), ())), preferred_element_type=dtype)


def _forward(x, kernel):
    return matmul(x, kernel), (x, kernel)


def _backward(residuals, grad):
    x, kernel = residuals
    return grad @ kernel, jax.lax.dot_general(grad, x, (((0,), (0,)), ((), ())))


matmul.defvjp(_forward, _backward)
