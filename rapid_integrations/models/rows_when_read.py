"""A table in the blocks of a file for kernels that read bfloat16: a token's row is computed before it is first read.

Gemma 4's table with inputs of every layer has more numbers than all its layers, and a text needs few of its rows. The
table lies in memory that the system gives page by page, when a row is written.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress

import torch
from torch import Tensor, nn

from rapid_integrations.kernels.cpu.blocks import rows_of
from rapid_integrations.models.block_linear import BlockTable, StoredBlocks

_AT_ONCE = 256  # rows
_NORESERVE = 0x4000  # MAP_NORESERVE of Linux on x86-64 and arm64, which Python has since 3.13


class RowsWhenRead(nn.Module):
    """Rows of a table in bfloat16, which are no parameters: what is there depends on what was read.

    Args:
        stored: the table.

    Attributes:
        weight: (V, K) bfloat16, zeros where no row was asked for.
    """

    def __init__(self, stored: StoredBlocks) -> None:
        super().__init__()
        rows, columns = stored.shape
        self._stored = stored
        self._there = torch.zeros(rows, dtype=torch.bool)
        self.weight = _untouched(rows * columns).view(rows, columns)

    def compute(self, token_ids: Tensor) -> None:
        """Compute the rows of tokens (T,), if they are not there."""
        missing = torch.unique(token_ids[~self._there[token_ids]])
        for part in missing.split(_AT_ONCE):
            self.weight[part] = rows_of(self._stored.form, self._stored.raw, part)
            self._there[part] = True


class TableWhenRead(BlockTable):
    """A table in the blocks of a file, with rows in bfloat16 beside it (`rows`)."""

    def __init__(self, stored: StoredBlocks) -> None:
        super().__init__(stored)
        self.rows = RowsWhenRead(stored)


def _untouched(count: int) -> Tensor:
    """Return zeros, (count,) bfloat16, that take no memory before something is written."""
    size = max(1, count) * torch.bfloat16.itemsize
    if sys.platform != "linux":
        return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.bfloat16, count=count)
    # Much larger than what is going to be written, so it is not counted against the system's memory.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    with suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # a row would take two megabytes
    return torch.frombuffer(memory, dtype=torch.bfloat16, count=count)
