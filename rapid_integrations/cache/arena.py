"""Memory in large pages for what a decode step reads from end to end: weights and KV caches.

A processor fetches ahead only within a page. On Linux's pages of 4 KB one core read weights at 15 GB/s, on pages of 2
MB at 30 GB/s (docs/log/). If the system has no large pages, the same code runs on ordinary memory.
"""

from __future__ import annotations

import logging
import math
import mmap
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_BLOCK = 64 * 2**20  # bytes that are asked for at once; parts that are never written take no memory
_ALIGNMENT = 64  # bytes; a line of the processor's cache


class Arena:
    """Hands out CPU tensors next to each other in blocks of memory with large pages.

    A block is freed when the last tensor in it is gone. Each tensor has a storage of its own that ends with it, so code
    that copies or saves a whole storage does not copy the block.

    Args:
        large_pages: False for tensors of which parts are freed: a large page stays as long as a part of it is needed.
    """

    def __init__(self, *, large_pages: bool = True) -> None:
        self._advice = "MADV_HUGEPAGE" if large_pages else "MADV_NOHUGEPAGE"
        self._block: mmap.mmap | bytearray = bytearray(0)
        self._used = 0
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor."""
        size = math.prod(shape) * dtype.itemsize
        if size == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        with self._lock:
            start = -(-self._used // _ALIGNMENT) * _ALIGNMENT
            if start + size > len(self._block):
                block = _new_block(max(_BLOCK, size), self._advice)
                if block is None:
                    return torch.empty(tuple(shape), dtype=dtype)
                self._block, start = block, 0
            self._used = start + size
            count = math.prod(shape)
            return torch.frombuffer(self._block, dtype=dtype, count=count, offset=start).view(tuple(shape))

    def copy(self, tensor: Tensor) -> Tensor:
        """Return a contiguous copy."""
        return self.empty(tensor.shape, tensor.dtype).copy_(tensor)

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return a copy of tensors of one dtype, one below the other; what `torch.cat` returns takes memory twice."""
        rows = [len(tensor) for tensor in tensors]
        whole = self.empty((sum(rows), *tensors[0].shape[1:]), tensors[0].dtype)
        for part, tensor in zip(torch.split(whole, rows), tensors, strict=True):
            part.copy_(tensor)
        return whole


def _new_block(size: int, advice: str) -> mmap.mmap | None:
    """Return memory that asks for large pages, or for none, or None if the system does not know them."""
    if not hasattr(mmap, advice):
        return None
    try:
        # Private: shared memory has no large pages, and a forked process would write into ours.
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size:,} bytes were requested: {error}") from error
    try:
        memory.madvise(getattr(mmap, advice))
    except OSError as error:  # a kernel without them
        logger.debug("no large pages: %s", error)
    return memory  # tensors hold it as long as they live
