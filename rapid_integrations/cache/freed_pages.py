"""Gives memory of rows that nobody will read back to the system, and leaves their addresses as they are.

Linux takes the pages of a range away and shows zeros there, until something is written again. So no row moves, and
whatever reads a cache needs to know nothing of it. Other systems, and GPUs, have no such call: there the rows stay.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache

from torch import Tensor

_DONTNEED = getattr(mmap, "MADV_DONTNEED", 4)


@cache
def serves() -> bool:
    """Whether this system takes pages back."""
    return sys.platform == "linux"


@cache
def _madvise() -> ctypes._NamedFuncPointer:
    call = ctypes.CDLL(None, use_errno=True).madvise
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return call


def free(rows: Tensor) -> None:
    """Free the whole pages of contiguous rows of a tensor on the processor, whose numbers are lost.

    A system that refuses (locked memory) keeps them, which does no harm.
    """
    size = mmap.PAGESIZE
    begin = -(-rows.data_ptr() // size) * size
    end = (rows.data_ptr() + rows.nbytes) // size * size
    if begin < end:
        _madvise()(begin, end - begin, _DONTNEED)
