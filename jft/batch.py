"""The one thing that the data side and the model side share."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

Array = np.ndarray | jax.Array

# Tokens of a block: attention takes or leaves keys, and queries, by so many at once.
BLOCK = 32


class Batch(NamedTuple):
    """Rows of token sequences, each row a forest of prefix trees in depth-first order.

    Query `q` sees key `k` of its row when `k <= q < visible_until[k]`: causal attention along the
    path from the root, and nothing else. Training prepends an axis of micro-batches to every array.

    Attributes:
      tokens_BT: token ids; 0 in padding.
      positions_BT: distance from the root of the tree, what rotary embeddings see.
      visible_until_BT: the row index at which the subtree of this token's node ends; past its own
        index, in padding, too.
      loss_index_BM: row index of the token whose hidden state predicts the target.
      loss_target_BM: the token id to predict there.
      loss_weight_BM: float32 weight of the entry; 0 in padding.
      loss_slot_BM: which sequence of the row the entry belongs to; 0 in padding.
      key_blocks_BQW: for each of the Q = ceil(T / BLOCK) blocks of queries the blocks of keys of
        which they see any, in order; Q where there are fewer than W. None: any may be seen.
      trunk_blocks_BU: blocks of keys that all queries of the row may see, and no list names.
    """

    tokens_BT: Array
    positions_BT: Array
    visible_until_BT: Array
    loss_index_BM: Array
    loss_target_BM: Array
    loss_weight_BM: Array
    loss_slot_BM: Array
    key_blocks_BQW: Array | None = None
    trunk_blocks_BU: Array | None = None


class Shape(NamedTuple):
    """Of the batches of a step or of a cell, over all devices.

    Attributes:
      micro_batches: A, the most that there are.
      rows: B of each.
      row_length: T.
      num_entries: M.
      num_key_blocks: W.
      num_trunk_blocks: U.
    """

    micro_batches: int
    rows: int
    row_length: int
    num_entries: int
    num_key_blocks: int
    num_trunk_blocks: int
