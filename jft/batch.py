"""The batch: all that passes from the data to the model, its mask rule, and the dimension letters.

Letters at the end of a name say what the dimensions of an array are: `tokens_BT` has a row and a
token axis. A digit is a dimension of that size. Each letter has one meaning in all of jft:

    A  trips of a loop: micro-batches of a step, chunks of attention or of the head
    B  rows of a batch
    C  members of a chunk: blocks of queries, loss entries
    D  embedding
    E  loss entries that a probe looks at
    F  feed-forward layer
    G  query heads that share a key-value head
    H  head size
    I  items of a set: prompts that are inserted together, items of a probe
    J  rank of adapters
    K  key-value heads
    L  layers
    M  loss entries of a row
    N  query heads
    O  new tokens of a generation
    P  tokens of a slot
    Q  blocks of tokens in a row
    R  slots of the KV cache
    S  gathered keys
    T  tokens of a row
    U  blocks of keys in the shared prefix
    V  vocabulary
    W  blocks of keys that are listed for a block of queries
    X  queries of a block, times G where a key-value head's queries are taken together
    Y  keys of a block
    Z  pairs of a block of queries and a block of keys
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

Array = np.ndarray | jax.Array

# Tokens of a block, the unit in which attention computes or skips queries and keys.
BLOCK = 32


class Batch(NamedTuple):
    """Rows of token sequences, each row a forest of prefix trees in depth-first order.

    `sees` says which keys a query attends to. Two sequences that share the tokens `a b`:

        sequences      a b c        a b d e
        index          0  1  2  3  4
        tokens         a  b  c  d  e
        positions      0  1  2  2  3        distance from the root
        visible_until  5  5  3  5  5        where the subtree of the token ends
        losses of c and of d e: loss_index 1, 1, 3; loss_target c, d, e; loss_sequence 0, 1, 1

    For training every array has a leading axis of micro-batches.

    Attributes:
      tokens_BT: token ids; 0 in padding.
      positions_BT: distance from the root of the tree, which rotary embeddings take.
      visible_until_BT: the row index at which the subtree of this token ends; one past its own
        index in padding.
      loss_index_BM: row index of the token whose hidden state predicts the target.
      loss_target_BM: the token id to predict there.
      loss_weight_BM: float32 weight of the entry; 0 in padding.
      loss_sequence_BM: which sequence of the row the entry belongs to; 0 in padding.
      key_blocks_BQW: for each of the Q = ceil(T / BLOCK) blocks of queries the blocks that hold a
        key which one of them sees, ascending, filled up with Q. None: any block may hold one.
      prefix_blocks_BU: blocks of keys that all queries of the row are scored against; they are in
        no list of `key_blocks_BQW`.
      window_blocks: the blocks that hold a key within a window of one of the queries, likewise, by
        window; a window that is not there is longer than all sequences. None: any block may hold
        one.
    """

    tokens_BT: Array
    positions_BT: Array
    visible_until_BT: Array
    loss_index_BM: Array
    loss_target_BM: Array
    loss_weight_BM: Array
    loss_sequence_BM: Array
    key_blocks_BQW: Array | None = None
    prefix_blocks_BU: Array | None = None
    window_blocks: dict[int, Array] | None = None

    def has_window(self, window: int) -> bool:
        """Check whether a window hides anything from any query of a sequence."""
        if self.window_blocks is None:
            return window < self.tokens_BT.shape[1]
        return window in self.window_blocks


class Shape(NamedTuple):
    """The sizes of a step's or a cell's batches, over all devices.

    Attributes:
      micro_batches: A, the largest number of them.
      rows: B of each.
      row_length: T.
      num_entries: M.
      num_key_blocks: W.
      num_prefix_blocks: U.
      window_blocks: pairs of a window that is shorter than a sequence and its W; None: windows are
        not known.
    """

    micro_batches: int
    rows: int
    row_length: int
    num_entries: int
    num_key_blocks: int
    num_prefix_blocks: int
    window_blocks: tuple[tuple[int, int], ...] | None = None


class PackingRules(NamedTuple):
    """Facts about a model that packing goes by: how it treats long sequences, how fast it is.

    Attributes:
      windows: the distinct windows of its layers; 0 stands for none.
      long_after: sequences of more tokens have other rotary embeddings, so no row holds both; 0:
        all have the same.
      shape_tokens: tokens that could be computed in the time that compiling one more shape takes;
        0: not known.
    """

    windows: tuple[int, ...]
    long_after: int = 0
    shape_tokens: int = 0


def sees(query, key, visible_until):
    """Apply the mask rule: query q sees key k when `k <= q < visible_until[k]`.

    This is causal attention along the path from the root of the tree, and nothing else. Attention,
    its kernels, the lists of key blocks and the paths of prompts in generation all apply it. (When
    generation goes on from there, all keys of a slot are visible, and lengths are its mask.) In
    layers with a window, `in_window` must hold, too.

    Args:
      query: row indices of queries.
      key: row indices of keys.
      visible_until: of these keys. All three broadcast, as NumPy or JAX arrays.
    """
    return (key <= query) & (query < visible_until)


def in_window(query_position, key_position, window: int):
    """Check that a key lies in a query's window: `query_position - key_position < window`.

    Positions count along the path, so a window holds the same tokens in a tree as in a row alone.

    Args:
      query_position: positions of queries.
      key_position: positions of keys; both broadcast, as NumPy or JAX arrays.
      window: 0: there is none.
    """
    return (query_position - key_position < window) if window else True
