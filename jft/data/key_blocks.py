"""Which blocks of keys the blocks of queries of a row meet, as lists of fixed sizes.

Every block of queries has its list, as wide as the longest. What nearly all of them would list, as
they do demonstrations at the begin of a row, is listed once for the row: its trunk.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jft.batch import BLOCK

# What attention to a block of the trunk costs, beside that to a block of the lists: all queries
# meet it in one matrix product, and none has to gather it.
TRUNK_COST = 0.6


class Sizes(NamedTuple):
    """Of the lists.

    Attributes:
      width: W, of the list of each block of queries.
      trunk: U, blocks at the begin of the row that all meet.
    """

    width: int
    trunk: int


def widths(visible_until_T: np.ndarray) -> np.ndarray:
    """W for a trunk of 0 to Q blocks, [Q + 1]."""
    meets_QQ = _meets(visible_until_T[None])[0]
    later_QQ = meets_QQ[:, ::-1].cumsum(axis=1, dtype=np.int32)[:, ::-1]
    return np.append(later_QQ.max(axis=0, initial=0), 0)


def best(widths: np.ndarray) -> Sizes:
    """The sizes that cost least, of the widths that the rows of a batch need; not both are 0."""
    costs = widths + TRUNK_COST * np.arange(len(widths))
    trunk = int(costs.argmin())
    return Sizes(max(int(widths[trunk]), 0 if trunk else 1), trunk)


def lists(visible_until_BT: np.ndarray, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """`Batch.key_blocks_BQW` and `Batch.trunk_blocks_BU`."""
    meets_BQQ = _meets(visible_until_BT)
    rows, num_blocks, _ = meets_BQQ.shape
    meets_BQQ[:, :, : sizes.trunk] = False
    listed_BQQ = np.sort(np.where(meets_BQQ, np.arange(num_blocks), num_blocks), axis=2)
    trunk_BU = np.tile(np.arange(sizes.trunk, dtype=np.int32), (rows, 1))
    return listed_BQQ[:, :, : sizes.width].astype(np.int32), trunk_BU


def _meets(visible_until_BT: np.ndarray) -> np.ndarray:
    """Whether a query of a block sees a key of another, [B, Q, Q] by (query, key)."""
    rows, length = visible_until_BT.shape
    num_blocks = math.ceil(length / BLOCK)
    fill = ((0, 0), (0, num_blocks * BLOCK - length))
    until_BQ = np.pad(visible_until_BT, fill).reshape(rows, num_blocks, BLOCK).max(axis=2)
    first_Q = np.arange(num_blocks) * BLOCK  # a later block sees a key if its first query does
    sees_BQQ = until_BQ[:, None] > first_Q[:, None]
    return sees_BQQ & np.tri(num_blocks, k=-1, dtype=bool) | np.eye(num_blocks, dtype=bool)
