"""Which blocks of queries meet which blocks of keys: lists for the kernels, made once per batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Pairs(NamedTuple):
    """The pairs of blocks that meet, `S` at most in a row of `Q` blocks, sorted by one side.

    Attributes:
      outer_BS: the side by which they are sorted; the last pair is repeated at the end.
      inner_BS: the other.
      start_BQ: where the pairs of each outer block begin, and, last of Q + 1, where they end.
    """

    outer_BS: jax.Array
    inner_BS: jax.Array
    start_BQ: jax.Array


def pairs(until_BT: jax.Array, size: int, most: int | None = None) -> tuple[Pairs, Pairs]:
    """The pairs of blocks of which a query sees a key, by query and by key.

    Args:
      until_BT: `Batch.visible_until_BT`, T a multiple of the block size.
      size: of a block.
      most: blocks of keys that a block of queries meets, W + U of `Batch`. What it sees before its
        own tokens, its first query sees; so it meets no more of these blocks than a small one
        meets of small ones.
    """
    rows, length = until_BT.shape
    num_blocks = length // size
    until_BQ1 = until_BT.reshape(rows, num_blocks, size).max(axis=2)[..., None]
    block_Q = jnp.arange(num_blocks)
    # Of a block of keys, its queries see some from its begin to the latest end, without a gap.
    seen_BQQ = (block_Q[:, None] <= block_Q[None])[None] & (block_Q[None, None] * size < until_BQ1)
    most = min(most or num_blocks, num_blocks)
    listed = sum(min(q + 1, most) for q in range(num_blocks))
    return _sorted(seen_BQQ.swapaxes(1, 2), listed), _sorted(seen_BQQ, listed)


def _sorted(meets_BQQ: jax.Array, most: int) -> Pairs:
    rows, num_blocks, _ = meets_BQQ.shape
    ends_BQ = meets_BQQ.sum(axis=2, dtype=jnp.int32).cumsum(axis=1)
    start_BQ = jnp.pad(ends_BQ, ((0, 0), (1, 0)))
    order_BS = jnp.argsort(~meets_BQQ.reshape(rows, -1), axis=1, stable=True)[:, :most]
    turn_BS = jnp.minimum(jnp.arange(most)[None], start_BQ[:, -1:] - 1)
    pair_BS = jnp.take_along_axis(order_BS, turn_BS, axis=1).astype(jnp.int32)
    return Pairs(pair_BS // num_blocks, pair_BS % num_blocks, start_BQ)
