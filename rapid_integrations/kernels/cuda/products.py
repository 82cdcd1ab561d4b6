"""Kernels: products with weights of eight and four bits, which are read once and turned into numbers in registers.

The weights are the left operand. A decode step has few rows of input, and the weights fill the tiles of the tensor
cores. A row is multiplied in the same order whatever other rows there are, so it has the same bits in each company of
one tile size: see `MOST_FEW_ROWS`.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapid_integrations.kernels.cuda.availability import interpreted
from rapid_integrations.kernels.cuda.launching import OPTIONS, dtype_of, where_it_lies

GROUP: Final = 32  # columns that share a scale and an offset
MOST_FEW_ROWS: Final = 32  # as many as a step has; more rows are a prompt's, and are multiplied in larger tiles
_GROUP, _HALF = tl.constexpr(GROUP), tl.constexpr(GROUP // 2)


@triton.jit(do_not_specialize=["rows"])
def _int8(
    levels,
    scales,
    x,
    bias,
    out,
    rows,
    outputs,
    columns,
    BIAS: tl.constexpr,
    DTYPE: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    OPERAND: tl.constexpr = tl.float32 if WIDE else DTYPE
    # Addresses are 64 bits wide for a whole tile, and 32 within it: there are as many as numbers.
    first_o, first_r = tl.program_id(0).to(tl.int64) * BLOCK_O, tl.program_id(1).to(tl.int64) * BLOCK_R
    o, r = tl.arange(0, BLOCK_O), tl.arange(0, BLOCK_R)
    outputs_left, rows_left = outputs - first_o, rows - first_r
    x += first_r * columns
    out += first_r * outputs + first_o
    levels += first_o * columns
    scales += first_o
    total = tl.zeros([BLOCK_O, BLOCK_R], tl.float32)
    for begin in range(0, columns, BLOCK_K):
        k = begin + tl.arange(0, BLOCK_K)
        there = k < columns
        w = tl.load(
            levels + o[:, None] * columns + k[None, :], mask=(o < outputs_left)[:, None] & there[None, :], other=0
        )
        own = tl.load(x + r[None, :] * columns + k[:, None], mask=(r < rows_left)[None, :] & there[:, None], other=0.0)
        total = tl.dot(w.to(OPERAND), own.to(OPERAND), total, input_precision="ieee")
    total *= tl.load(scales + o, mask=o < outputs_left, other=0.0).to(tl.float32)[:, None]
    if BIAS:
        total += tl.load(bias + first_o + o, mask=o < outputs_left, other=0.0).to(tl.float32)[:, None]
    tl.store(
        out + r[None, :] * outputs + o[:, None],
        total.to(DTYPE),
        mask=(o < outputs_left)[:, None] & (r < rows_left)[None, :],
    )


@triton.jit(do_not_specialize=["rows"])
def _int4(
    packed,
    scales,
    zeros,
    x,
    bias,
    out,
    rows,
    outputs,
    columns,
    BIAS: tl.constexpr,
    DTYPE: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    OPERAND: tl.constexpr = tl.float32 if WIDE else DTYPE
    # Addresses are 64 bits wide for a whole tile, and 32 within it: there are as many as numbers.
    first_o, first_r = tl.program_id(0).to(tl.int64) * BLOCK_O, tl.program_id(1).to(tl.int64) * BLOCK_R
    o, r = tl.arange(0, BLOCK_O), tl.arange(0, BLOCK_R)
    outputs_left, rows_left = outputs - first_o, rows - first_r
    x += first_r * columns
    out += first_r * outputs + first_o
    packed += first_o * (columns // 2)
    scales += first_o * (columns // _GROUP)
    zeros += first_o * (columns // _GROUP)
    total = tl.zeros([BLOCK_O, BLOCK_R], tl.float32)
    width = columns // 2
    groups = columns // _GROUP
    for begin in range(0, width, BLOCK_B):
        b = begin + tl.arange(0, BLOCK_B)
        group = b // _HALF
        there = (o < outputs_left)[:, None] & (b < width)[None, :]
        both = tl.load(packed + o[:, None] * width + b[None, :], mask=there, other=0).to(tl.int32)
        scale = tl.load(scales + o[:, None] * groups + group[None, :], mask=there, other=0.0).to(tl.float32)
        zero = tl.load(zeros + o[:, None] * groups + group[None, :], mask=there, other=0.0).to(tl.float32)
        low = ((both & 15) - 8).to(tl.float32) * scale + zero
        high = ((both >> 4) - 8).to(tl.float32) * scale + zero
        # The first half of a group lies in the low bits of its bytes, and the second half in the high ones.
        own = x + r[None, :] * columns + (group * _GROUP + b % _HALF)[:, None]
        inside = (r < rows_left)[None, :] & (b < width)[:, None]
        first = tl.load(own, mask=inside, other=0.0)
        second = tl.load(own + _HALF, mask=inside, other=0.0)
        total = tl.dot(low.to(DTYPE).to(OPERAND), first.to(OPERAND), total, input_precision="ieee")
        total = tl.dot(high.to(DTYPE).to(OPERAND), second.to(OPERAND), total, input_precision="ieee")
    if BIAS:
        total += tl.load(bias + first_o + o, mask=o < outputs_left, other=0.0).to(tl.float32)[:, None]
    tl.store(
        out + r[None, :] * outputs + o[:, None],
        total.to(DTYPE),
        mask=(o < outputs_left)[:, None] & (r < rows_left)[None, :],
    )


@where_it_lies
def int8_product(x: Tensor, levels: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b, (T, O), of weights level * scale.

    Args:
        x: (T, K).
        levels: (O, K) int8, contiguous.
        scales: (O,).
        bias: (O,) or None.
    """
    x = x.contiguous()
    out = x.new_empty(len(x), len(levels))
    block_o, block_r, warps = _blocks(len(x), len(levels))
    grid = triton.cdiv(len(levels), block_o), triton.cdiv(len(x), block_r)
    _int8[grid](
        levels,
        scales,
        x,
        x if bias is None else bias,
        out,
        len(x),
        *levels.shape,
        BIAS=bias is not None,
        DTYPE=dtype_of(x),
        WIDE=interpreted(),
        BLOCK_O=block_o,
        BLOCK_R=block_r,
        BLOCK_K=64,
        num_warps=warps,
        **OPTIONS,
    )
    return out


@where_it_lies
def int4_product(x: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b, (T, O), of weights (level - 8) * scale + zero, rounded to the dtype of x.

    Args:
        x: (T, K).
        packed: (O, K / 2) uint8, from `packed_int4`.
        scales, zeros: (O, K / 32).
        bias: (O,) or None.
    """
    x = x.contiguous()
    out = x.new_empty(len(x), len(packed))
    block_o, block_r, warps = _blocks(len(x), len(packed))
    grid = triton.cdiv(len(packed), block_o), triton.cdiv(len(x), block_r)
    _int4[grid](
        packed,
        scales,
        zeros,
        x,
        x if bias is None else bias,
        out,
        len(x),
        len(packed),
        x.shape[1],
        BIAS=bias is not None,
        DTYPE=dtype_of(x),
        WIDE=interpreted(),
        BLOCK_O=block_o,
        BLOCK_R=block_r,
        BLOCK_B=32,
        num_warps=warps,
        **OPTIONS,
    )
    return out


def packed_int4(levels: Tensor) -> Tensor:
    """Return (O, K / 2) uint8 of levels (O, K) from 0 to 15: of each 32 the first half in the low bits."""
    halves = levels.view(len(levels), -1, 2, GROUP // 2)
    return (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1).to(torch.uint8).contiguous()


def unpacked_int4(packed: Tensor) -> Tensor:
    """Return the levels (O, K) uint8 again."""
    halves = packed.view(len(packed), -1, GROUP // 2)
    return torch.stack([halves & 15, halves >> 4], dim=2).flatten(1)


def _blocks(rows: int, outputs: int) -> tuple[int, int, int]:
    """Return how many outputs and rows a program computes, and its warps.

    Of few outputs each program computes few, so that there are programs for all processors of a GPU.
    """
    if rows > MOST_FEW_ROWS:
        return 128, 64, 8
    return (64 if outputs > 1 << 13 else 32 if outputs > 1 << 11 else 16), MOST_FEW_ROWS, 4
