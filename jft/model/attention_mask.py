"""The masks of attention along prefix trees: the blocks of keys that a chunk of queries gathers.

A mask is made once for all layers of a kind; `attention.py` says what it is for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jft.batch import BLOCK, Array, Batch, in_window, sees
from jft.model.architecture import DecoderConfig

# Scores of a chunk, measured on CPUs: more of them leave the processor's caches between one
# operation and the next, and fewer make small products.
CHUNK_SCORES = 1 << 20


class KeyBlocks(NamedTuple):
    """Key blocks that each chunk gathers: those listed for its query blocks, or the prefix.

    Attributes:
      blocks_ABCW: their indices in the row; past its end where a list is filled up.
      visible_ABCXS: which of their keys, S = W * Y, each of the X queries of a block sees.
    """

    blocks_ABCW: jax.Array
    visible_ABCXS: jax.Array


# The listed key blocks and those of the prefix, as far as there are any.
BlockMask = tuple[KeyBlocks, ...]


class Mask(NamedTuple):
    """The masks of a batch, the same for all layers of a kind.

    Attributes:
      masks: the distinct ones.
      of_window: which of them belongs to each of `DecoderConfig.windows`.
    """

    masks: tuple[BlockMask, ...]
    of_window: tuple[int, ...]


def make_mask(batch: Batch, config: DecoderConfig) -> Mask:
    """Make the masks of a batch, once for all layers."""
    # A window that is longer than all sequences is none.
    windows = [window if batch.has_window(window) else 0 for window in config.windows]
    distinct = tuple(dict.fromkeys(windows))
    lists = [_block_lists(batch, window) for window in distinct]
    num_blocks = math.ceil(batch.visible_until_BT.shape[1] / BLOCK)
    # Chunks are the same for all masks, so that arrays of one layer have the shapes of all others.
    gathered = max(sum(blocks.shape[-1] for blocks in each) for each in lists)
    chunks = _chunks(num_blocks, config.num_heads * BLOCK * BLOCK * gathered)
    masks = (
        _mask(batch, *each, chunks, window) for each, window in zip(lists, distinct, strict=True)
    )
    return Mask(tuple(masks), tuple(map(distinct.index, windows)))


def _block_lists(batch: Batch, window: int) -> tuple[Array, Array]:
    """Return the lists of key blocks of a window, [B, Q, W], and the prefix, [B, U]."""
    rows, length = batch.visible_until_BT.shape
    num_blocks = math.ceil(length / BLOCK)
    no_list, no_prefix = np.zeros((rows, num_blocks, 0), np.int32), np.zeros((rows, 0), np.int32)
    if window and batch.window_blocks:
        return batch.window_blocks[window], no_prefix
    if batch.key_blocks_BQW is None:  # any block may be visible: all of them are the prefix
        return no_list, np.tile(np.arange(num_blocks, dtype=np.int32), (rows, 1))
    prefix_BU = no_prefix if batch.prefix_blocks_BU is None else batch.prefix_blocks_BU
    return batch.key_blocks_BQW, prefix_BU


def _mask(
    batch: Batch, listed_BQW: Array, prefix_BU: Array, chunks_size: tuple[int, int], window: int
) -> BlockMask:
    """Make the mask of one window for queries in some chunks of some blocks each."""
    rows, num_blocks, _ = listed_BQW.shape
    chunks, size = chunks_size
    # The last chunk is filled up with query blocks whose list is empty.
    fill = ((0, 0), (0, chunks * size - num_blocks), (0, 0))
    listed_BQW = jnp.pad(jnp.asarray(listed_BQW), fill, constant_values=num_blocks)
    shape = (rows, chunks, 1, prefix_BU.shape[1])  # C = 1: shared by the chunk
    lists = (
        listed_BQW.reshape(rows, chunks, size, -1),
        jnp.broadcast_to(jnp.asarray(prefix_BU)[:, None, None], shape),
    )
    query_ACX = jnp.arange(chunks * size * BLOCK).reshape(chunks, size, BLOCK)
    return tuple(
        _key_blocks(batch, blocks_BACW, query_ACX, window)
        for blocks_BACW in lists
        if blocks_BACW.shape[-1]
    )


def _key_blocks(
    batch: Batch, blocks_BACW: jax.Array, query_ACX: jax.Array, window: int
) -> KeyBlocks:
    """Apply the mask rule to each query, and each key of the blocks that its chunk gathers."""

    def by_block(x_BT):
        x_BT = jnp.asarray(x_BT)
        fill = ((0, 0), (0, -x_BT.shape[1] % BLOCK))
        return jnp.pad(x_BT, fill).reshape(len(x_BT), -1, BLOCK)

    def of_keys(x_BQY):
        """Gather a number for each key; all keys of W blocks are one axis, S: [B, A, C, 1, S]."""
        x_BACWY = jax.vmap(lambda x_QY, blocks_ACW: x_QY.at[blocks_ACW].get(mode="clip"))(
            x_BQY, blocks_BACW
        )
        return x_BACWY.reshape(*blocks_BACW.shape[:3], 1, -1)

    # The keys of a block past the end come after all queries that see anything: nobody sees them.
    key_BACWY = blocks_BACW[..., None] * BLOCK + jnp.arange(BLOCK)[None, None, None, None]
    key_BAC1S = key_BACWY.reshape(*blocks_BACW.shape[:3], 1, -1)
    until_BAC1S = of_keys(by_block(batch.visible_until_BT))
    visible_BACXS = sees(query_ACX[None, ..., None], key_BAC1S, until_BAC1S)
    if window:
        position_BQY = by_block(batch.positions_BT)
        chunks, size, _ = query_ACX.shape
        fill = ((0, 0), (0, chunks * size - position_BQY.shape[1]), (0, 0))
        position_BACX = jnp.pad(position_BQY, fill).reshape(-1, *query_ACX.shape)
        visible_BACXS &= in_window(position_BACX[..., None], of_keys(position_BQY), window)
    # Chunks first: `lax.scan` loops over the first axis.
    return KeyBlocks(blocks_BACW.swapaxes(0, 1), visible_BACXS.swapaxes(0, 1))


def _chunks(num_blocks: int, scores_per_block: int) -> tuple[int, int]:
    """Choose the number of chunks, and the blocks of queries in each."""
    chunks = math.ceil(num_blocks / max(1, CHUNK_SCORES // scores_per_block))
    return chunks, math.ceil(num_blocks / chunks)
