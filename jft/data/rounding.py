"""Sizes of batches, rounded up so that runs and cells share compiled programs."""

from __future__ import annotations

import math

from jft.batch import BLOCK, Shape

# Key blocks that are listed or multiplied at once are cheap: numbers of them are rounded to this.
KEY_BLOCKS_MULTIPLE = 4


def multiple(least: int, of: int) -> int:
    """Round up to a multiple."""
    return math.ceil(least / of) * of


def power_of_two(least: int, smallest: int) -> int:
    """Round up to a power of two times `smallest`."""
    size = smallest
    while size < least:
        size *= 2
    return size


def by_a_quarter(least: int) -> int:
    """Round up to three significant bits."""
    return multiple(least, 1 << max(0, least.bit_length() - 3))


def coarse(shape: Shape) -> Shape:
    """Round up the sizes of a run that depend on its examples, by a quarter at most."""
    return key_blocks(shape)._replace(
        micro_batches=by_a_quarter(shape.micro_batches), num_entries=by_a_quarter(shape.num_entries)
    )


def key_blocks(shape: Shape) -> Shape:
    """Round the numbers of key blocks up, as far as there are blocks.

    The prefix is cut to a multiple, and the blocks cut off go into the lists of key blocks.
    """
    most = math.ceil(shape.row_length / BLOCK)
    listed, windows = shape.num_prefix_blocks % KEY_BLOCKS_MULTIPLE, shape.window_blocks

    def rounded(number: int) -> int:
        return min(most, multiple(number, KEY_BLOCKS_MULTIPLE))

    return shape._replace(
        num_key_blocks=rounded(shape.num_key_blocks + listed),
        num_prefix_blocks=shape.num_prefix_blocks - listed,
        window_blocks=windows and tuple((window, rounded(width)) for window, width in windows),
    )
