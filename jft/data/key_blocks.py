"""Lists of key blocks: those whose keys the queries of a block see, along paths and in windows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jft.batch import BLOCK, in_window, sees

# Cost of attention to a block of the shared prefix, where a block of a list costs 1 (measured on
# CPUs): the keys of the prefix are multiplied with all queries at once, and not gathered.
PREFIX_COST = 0.6


class BlockSizes(NamedTuple):
    """Widths of the lists of key blocks.

    Attributes:
      listed: W, blocks in the list of each block of queries.
      prefix: U, blocks at the beginning of the row, which all queries are scored against.
    """

    listed: int
    prefix: int


def widths_of(visible_until_T: np.ndarray) -> np.ndarray:
    """Find the W that a row needs if its shared prefix has 0, 1, ... Q blocks, [Q + 1]."""
    seen_QQ = seen_blocks(visible_until_T[None])[0]
    # Blocks that a query block sees from each key block on, which are listed if the prefix ends
    # there.
    later_QQ = seen_QQ[:, ::-1].cumsum(axis=1, dtype=np.int32)[:, ::-1]
    return np.append(later_QQ.max(axis=0, initial=0), 0)


def best_sizes(widths: np.ndarray) -> BlockSizes:
    """Choose the cheapest sizes, at least one of them above 0.

    Args:
      widths: the largest of `widths_of` over the rows of a batch.
    """
    costs = widths + PREFIX_COST * np.arange(len(widths))
    prefix = int(costs.argmin())
    return BlockSizes(max(int(widths[prefix]), 0 if prefix else 1), prefix)


def list_blocks(visible_until_BT: np.ndarray, sizes: BlockSizes) -> tuple[np.ndarray, np.ndarray]:
    """List the key blocks of every block of queries: `Batch.key_blocks_BQW`, `prefix_blocks_BU`.

    Example: four blocks, where block 0 holds demonstrations that all queries see and the others
    hold sequences of their own. With W=1, U=1 the lists are [4] [1] [2] [3], where 4 means none,
    and the prefix is [0].
    """
    seen_BQQ = seen_blocks(visible_until_BT)
    rows = len(seen_BQQ)
    seen_BQQ[:, :, : sizes.prefix] = False
    prefix_BU = np.tile(np.arange(sizes.prefix, dtype=np.int32), (rows, 1))
    return listed(seen_BQQ, sizes.listed), prefix_BU


def listed(seen_BQQ: np.ndarray, width: int) -> np.ndarray:
    """List the key blocks that each block of queries sees, ascending, filled up with Q."""
    num_blocks = seen_BQQ.shape[2]
    listed_BQQ = np.sort(np.where(seen_BQQ, np.arange(num_blocks), num_blocks), axis=2)
    return listed_BQQ[:, :, :width].astype(np.int32)


def seen_blocks(
    visible_until_BT: np.ndarray, positions_BT: np.ndarray | None = None, window: int = 0
) -> np.ndarray:
    """Find whether any query of a block sees any key of another, [B, Q, Q] by (query, key).

    With a window, blocks are listed too whose latest position is in reach of the earliest.
    """
    rows, length = visible_until_BT.shape
    num_blocks = math.ceil(length / BLOCK)
    fill = ((0, 0), (0, num_blocks * BLOCK - length))

    def by_block(x_BT):
        return np.pad(x_BT, fill, mode="edge").reshape(rows, num_blocks, BLOCK)

    # A later block sees a key if its first query does; each block sees itself.
    first_Q = np.arange(num_blocks) * BLOCK
    until_BQ = by_block(visible_until_BT).max(axis=2)
    seen_BQQ = sees(first_Q[:, None], first_Q[None] + BLOCK - 1, until_BQ[:, None])
    if window and positions_BT is not None:
        position_BQY = by_block(positions_BT)
        query_BQ1, key_B1Q = position_BQY.min(axis=2)[:, :, None], position_BQY.max(axis=2)[:, None]
        seen_BQQ &= in_window(query_BQ1, key_B1Q, window)
    return seen_BQQ | np.eye(num_blocks, dtype=bool)
