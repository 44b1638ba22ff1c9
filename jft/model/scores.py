"""Attention scores from products of queries and keys, and their gradients."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jft.model.architecture import DecoderConfig


class Scores(NamedTuple):
    """The scores of attention, as made of the products of queries and keys.

    Attributes:
      scale: factor of it.
      cap: c of c * tanh(score / c), by which scores are bounded; 0: they are not.
    """

    scale: float
    cap: float = 0.0

    @classmethod
    def of(cls, config: DecoderConfig) -> Scores:
        """Take a decoder's scores."""
        return cls(config.score_scale or config.head_dim**-0.5, config.score_cap)

    def of_products(self, products: jax.Array) -> jax.Array:
        """Compute the scores from the products of queries and keys."""
        return soft_cap(products * self.scale, self.cap)

    def gradient(self, d_scores: jax.Array, scores: jax.Array) -> jax.Array:
        """Compute the gradient of the products from that of the scores.

        Args:
          d_scores: gradient of the scores; 0 where a query does not see a key.
          scores: the scores; any number of at most -cap stands for those that are not seen.
        """
        if self.cap:
            d_scores *= 1 - (jnp.maximum(scores, -self.cap) / self.cap) ** 2
        return d_scores * self.scale


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """Bound numbers smoothly to -cap .. cap (Bello et al. 2017, arXiv 1611.09940); 0: do not."""
    return cap * jnp.tanh(x / cap) if cap else x
