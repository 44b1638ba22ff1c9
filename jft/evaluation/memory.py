"""How the C library of Linux gives memory back."""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST = 2**31 - 1


def applies() -> bool:
    """Whether the C library is glibc, which can be told."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


def keep_freed() -> None:
    """Have the process keep what is freed, for the next array.

    Large arrays would be mapped anew each time, and the kernel clear every page of them: a tenth of
    the time of a small cell that is generated for.
    """
    if applies():
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, MOST)
