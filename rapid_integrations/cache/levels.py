"""Rows of a KV cache in eight bits.

A row (the key or value of one token in one head) has D levels from -127 to 127 and, in its last four bytes, a scale of
its own (float32): number = level * scale. A row therefore never depends on the rows around it. It has the same bits
whether it was written alone or among others, and it may be kept, moved, shared or rolled back like any other row.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

SCALE_BYTES: Final = 4
_LEVELS = 127
_LEAST = 1e-30  # rows of smaller numbers are zeros


def quantised(rows: Tensor) -> Tensor:
    """Return rows (..., D) as int8 (..., D + 4). A row that holds NaN or an infinity is NaN when it is read.

    The kernels' `store_row` gives the same bits.
    """
    numbers = rows.float()
    most = numbers.abs().amax(dim=-1, keepdim=True)
    finite = most.isfinite()
    most_levels = torch.full_like(most, _LEVELS)  # of a number, torch would multiply with the rounded inverse
    factor = torch.where(finite & (most > _LEAST), most_levels / most, 0.0)
    levels = torch.where(finite, numbers * factor, 0.0).round_().to(torch.int8)
    scale = torch.where(factor > 0, most / _LEVELS, 0.0).masked_fill_(~finite, float("nan"))
    return torch.cat([levels, scale.view(torch.int8)], dim=-1)


def restored(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows (..., D + 4) of `quantised` as numbers (..., D). Rows of any other dtype are returned as they are."""
    if rows.dtype != torch.int8:
        return rows
    scale = rows[..., -SCALE_BYTES:].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return (rows[..., :-SCALE_BYTES] * scale).to(dtype)
