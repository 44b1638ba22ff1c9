"""What the forward pass keeps for the backward pass, which computes the rest again."""

from __future__ import annotations

import jax
from jax.ad_checkpoint import checkpoint_name

_KEPT = "kept"

# By the names of `train.remat`: everything is kept; or matrix products, since what lies between
# them costs little; or nothing but each layer's input.
POLICIES = {
    "none": jax.checkpoint_policies.everything_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names(_KEPT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def kept(x: jax.Array) -> jax.Array:
    """Mark an array as one that is dear to compute."""
    return checkpoint_name(x, _KEPT)
