"""Keeps memory that is freed in a process, for work that frees and takes it again in every step."""

from __future__ import annotations

import ctypes
from functools import cache

# The names of glibc's malloc.h, and values above any tensor of a step.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Have glibc keep large blocks that are freed, instead of giving them back to the system.

    A training step frees its activations and takes as much again in the next one; the system clears
    every page in between, which took a fifth of a private step of a small transformer.  The process
    then holds its largest demand until it ends.  It counts for the whole process, and does nothing
    where the C library is another one.

    Returns:
        Whether glibc has taken it.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    options = (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)
    return all(bool(set_option(option, _LARGE)) for option in options)
