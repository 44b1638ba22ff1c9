"""The product of activations with a kernel, and its slopes.

Kernels have their outputs first, as checkpoints on the Hugging Face hub do.
"""

from __future__ import annotations

import math

import jax

# Tokens for which a kernel counts as large beside what it is multiplied with.
FEW = 64


def product(x: jax.Array, kernel: jax.Array, inputs: int) -> jax.Array:
    """The product over the last axes of `x` and of `kernel`, as many as `inputs`."""
    ahead, outputs = x.shape[: x.ndim - inputs], kernel.shape[: kernel.ndim - inputs]
    width = math.prod(kernel.shape[kernel.ndim - inputs :])
    y = matrix_product(x.reshape(-1, width), kernel.reshape(-1, width))
    return y.reshape(*ahead, *outputs)


@jax.custom_vjp
def matrix_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel.T`, with slopes that XLA computes from the matrices as they lie in memory.

    JAX would take the kernel's as a product the other way round, transposed: XLA for CPUs merges
    that transposition with what comes before, and reads whole activations down their columns.
    """
    if len(x) > FEW:
        return _plain(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=_of_few, default=_plain)


def _plain(x, kernel):
    return jax.lax.dot_general(x, kernel, (((1,), (1,)), ((), ())))


def _of_few(x, kernel):
    # XLA for CPUs rearranges the second matrix of a product before it begins: let it be the small
    # one. Without the barriers it would see that these are the same products.
    barrier = jax.lax.optimization_barrier
    return barrier(kernel @ barrier(x.T)).T


def _forward(x, kernel):
    return matrix_product(x, kernel), (x, kernel)


def _backward(residuals, slope):
    x, kernel = residuals
    return slope @ kernel, jax.lax.dot_general(slope, x, (((0,), (0,)), ((), ())))


matrix_product.defvjp(_forward, _backward)
