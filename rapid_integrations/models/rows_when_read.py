"""A table in the blocks of a file for kernels that read bfloat16: a token's row is computed before it is first read.

The table with inputs of every layer (Gemma 3n, Gemma 4) has more numbers than all layers, and a text needs few of its
rows. The table lies in memory that the system gives page by page, when a row is written. Beyond a budget the rows that
were not read for the longest time are given back, and computed again if they are read again.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from math import lcm

import torch
from torch import Tensor, nn

from rapid_integrations.kernels.cpu.blocks import rows_of
from rapid_integrations.models.block_linear import BlockTable, StoredBlocks

BUDGET = 1 << 28  # bytes: 15,000 rows of Gemma 3n and of Gemma 4 E2B; to compute one takes some microseconds
_AT_ONCE = 256  # rows
_KEPT = 0.75  # of the budget after some were given back, so that it is not done again at each step
_NORESERVE = 0x4000  # MAP_NORESERVE of Linux on x86-64 and arm64, which Python has since 3.13


class RowsWhenRead(nn.Module):
    """Rows of a table in bfloat16, which are no parameters: what is there depends on what was read.

    Args:
        stored: the table.
        budget: bytes that rows may take. The rows of one pass are all there, however many they are. Systems other than
            Linux give nothing back.

    Attributes:
        weight: (V, K) bfloat16, zeros where no row was asked for, or where it was given back.
        computed: how many rows are there.
    """

    def __init__(self, stored: StoredBlocks, budget: int) -> None:
        super().__init__()
        rows, columns = stored.shape
        row_bytes = columns * torch.bfloat16.itemsize
        self._stored = stored
        self._there = torch.zeros(rows, dtype=torch.bool)
        self._memory = _untouched(rows * columns)
        self.weight = torch.frombuffer(self._memory, dtype=torch.bfloat16, count=rows * columns).view(rows, columns)
        self.computed = 0
        # Pages are given back, so rows are in groups that begin and end with a page.
        self._group_bytes = lcm(row_bytes, mmap.PAGESIZE)
        self._group = self._group_bytes // row_bytes
        self._read_at = torch.zeros(-(-rows // self._group), dtype=torch.int64)  # the pass that has last read a group
        self._passes = 0
        self._most = budget // row_bytes if sys.platform == "linux" else rows

    def compute(self, token_ids: Tensor) -> None:
        """Compute the rows of tokens (T,) that a pass will read, if they are not there.

        Rows that are not among them may be given back, so no other pass may be reading.
        """
        self._passes += 1
        self._read_at[token_ids // self._group] = self._passes
        missing = torch.unique(token_ids[~self._there[token_ids]])
        if self.computed + len(missing) > self._most:
            self._give_back(max(0, int(self._most * _KEPT) - len(missing)))
        for part in missing.split(_AT_ONCE):
            self.weight[part] = rows_of(self._stored.form, self._stored.raw, part)
            self._there[part] = True
        self.computed += len(missing)

    def _give_back(self, keep: int) -> None:
        """Give back groups that were not read for the longest time, none of this pass, until `keep` rows are there."""
        for group in self._read_at.argsort().tolist():
            if self.computed <= keep or self._read_at[group] == self._passes:
                return
            own = self._there[group * self._group : (group + 1) * self._group]
            if found := int(own.sum()):
                start = group * self._group_bytes
                self._memory.madvise(mmap.MADV_DONTNEED, start, min(self._group_bytes, len(self._memory) - start))
                own.fill_(False)
                self.computed -= found


class TableWhenRead(BlockTable):
    """A table in the blocks of a file, with rows in bfloat16 beside it (`rows`)."""

    def __init__(self, stored: StoredBlocks) -> None:
        super().__init__(stored)
        self.rows = RowsWhenRead(stored, BUDGET)


def _untouched(count: int) -> mmap.mmap:
    """Return zeros for so many bfloat16 that take no memory before something is written."""
    size = max(1, count) * torch.bfloat16.itemsize
    if sys.platform != "linux":
        return mmap.mmap(-1, size)
    # Much larger than what is going to be written, so it is not counted against the system's memory.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    with suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # a row would take two megabytes
    return memory
