"""The product of activations with a kernel, and its slopes."""

from __future__ import annotations

import math

import jax


def product(x: jax.Array, kernel: jax.Array, inputs: int) -> jax.Array:
    """The product over the last axes of `x`, as many as `inputs`, and the first of `kernel`."""
    ahead, outputs = x.shape[: x.ndim - inputs], kernel.shape[inputs:]
    width = math.prod(kernel.shape[:inputs])
    y = _matrix_product(x.reshape(-1, width), kernel.reshape(width, -1))
    return y.reshape(*ahead, *outputs)


@jax.custom_vjp
def _matrix_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel`, with slopes that XLA computes from the matrices as they lie in memory.

    JAX would take the kernel's as a product the other way round, transposed: XLA for CPUs merges
    that transposition with what comes before, and reads whole activations down their columns.
    """
    return x @ kernel


def _matrix_product_forward(x, kernel):
    return x @ kernel, (x, kernel)


def _matrix_product_backward(residuals, slope):
    x, kernel = residuals
    of_x = jax.lax.dot_general(slope, kernel, (((1,), (1,)), ((), ())))
    return of_x, jax.lax.dot_general(x, slope, (((0,), (0,)), ((), ())))


_matrix_product.defvjp(_matrix_product_forward, _matrix_product_backward)
