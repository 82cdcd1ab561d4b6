"""Kernels: the sum of the residual stream and its norm, and the rows of the embedding table."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rapid_integrations.kernels.cuda.launching import OPTIONS
from rapid_integrations.kernels.layers import Norm


@triton.jit
def normalised(x, inside, count, eps, CENTRED: tl.constexpr):
    """Return float32 x (E,) without its mean if that is asked for, over the root of its mean square."""
    if CENTRED:
        x = tl.where(inside, x - tl.sum(x, 0) / count, 0.0)
    return x * (1.0 / tl.sqrt(tl.sum(x * x, 0) / count + eps))


@triton.jit
def _add_norm(
    x,
    more,
    out,
    weight,
    bias,
    count,
    x_stride,
    out_stride,
    factor,
    eps,
    offset,
    ADDS: tl.constexpr,
    NORM: tl.constexpr,
    CENTRED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < count
    place = x + row * x_stride + at
    value = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        value += factor * tl.load(more + row * count + at, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(place, rounded, mask=inside)
        value = rounded.to(tl.float32)  # the norm is of what the next layer finds in the stream
    if NORM:
        value = normalised(value, inside, count, eps, CENTRED)
        if WEIGHT:
            value *= tl.load(weight + at, mask=inside, other=0.0).to(tl.float32) + offset
        if BIAS:
            value += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row * out_stride + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _embed(ids, table, out, rows, count, scale, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(ids + row)
    at = tl.arange(0, BLOCK)
    inside = at < count
    value = tl.full([BLOCK], float("nan"), tl.float32)
    # A row of NaN is noticed in the logits. An access beyond the table would end every later call on this device.
    if token >= 0 and token < rows:
        value = tl.load(table + token * count + at, mask=inside, other=0.0).to(tl.float32) * scale
    tl.store(out + row * count + at, value.to(out.dtype.element_ty), mask=inside)


def add_norm(x: Tensor, more: Tensor | None, factor: float, norm: Norm | None, out: Tensor) -> Tensor:
    """Add factor * `more` to x in place, and return the normalised sum, or x itself if there is no norm.

    Args:
        x: (R, E), with unit stride along E; changed if there is `more`.
        more: (R, E), contiguous, or None.
        factor: of `more`.
        norm: of whole rows.
        out: (R, E), with unit stride along E, where the result goes; it may be x.
    """
    if more is None and norm is None:
        return x
    rows, count = x.shape
    _add_norm[(rows,)](
        x,
        x if more is None else more,
        out,
        x if norm is None or norm.weight is None else norm.weight,
        x if norm is None or norm.bias is None else norm.bias,
        count,
        x.stride(0),
        out.stride(0),
        factor,
        0.0 if norm is None else norm.eps,
        0.0 if norm is None else norm.offset,
        ADDS=more is not None,
        NORM=norm is not None,
        CENTRED=norm is not None and norm.centred,
        WEIGHT=norm is not None and norm.weight is not None,
        BIAS=norm is not None and norm.bias is not None,
        BLOCK=triton.next_power_of_2(count),
        num_warps=warps_of(count),
        **OPTIONS,
    )
    return x if norm is None else out


def embed(ids: Tensor, table: Tensor, scale: float, out: Tensor) -> Tensor:
    """Write scale * table[ids] to `out` and return it; an id that is no row's becomes NaN.

    Args:
        ids: (R,) int64.
        table: (V, E).
        scale: factor.
        out: (R, E).
    """
    rows, count = table.shape
    block = triton.next_power_of_2(count)
    _embed[(ids.shape[0],)](ids, table, out, rows, count, scale, BLOCK=block, num_warps=warps_of(count), **OPTIONS)
    return out


def warps_of(count: int) -> int:
    """Return how many warps share a row of so many numbers."""
    return 4 if count <= 2048 else 8
