"""Weights of eight and four bits on NVIDIA's GPUs, by PyTorch's product with four-bit integers.

The operator keeps integers in a layout of its own. This is the only copy that is held: a product with many rows
(prefill) turns it back into numbers, with an order that is learnt from the operator itself (`_order`). It multiplies
four bits only, so a level of eight bits is two of them: 16 * high + low. Both are small integers, which bfloat16 holds
exactly, and the scale applies to the sum.

The operator needs bfloat16 instructions. Other GPUs dequantise at every product (`linear.py`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import linear

from rapid_integrations.models.placement import AMPERE, capability

GROUP = 32  # weights that share a scale and a zero in four bits
FEW_ROWS = 64
"""Rows up to which the operator multiplies. A round verifies 17 rows at most, and several requests share a pass."""

_TILE_ROWS, _TILE_COLUMNS = 8, 16  # of the operator's layout; it joins 2, 4 or 8 tiles of columns
_LARGEST_GROUP = 256


def integers_multiplied(weight: Tensor) -> bool:
    """Return whether the operator takes a weight (O, K) of this shape, dtype and device."""
    return (
        weight.device.type == "cuda"
        and torch.version.hip is None
        and weight.dtype in (torch.bfloat16, torch.float16)
        and joined_tiles(*weight.shape) is not None
        and capability(weight.device) >= AMPERE
    )


def joined_tiles(rows: int, columns: int) -> int | None:
    """Return how many tiles of 16 columns lie together in the operator's layout; None if it does not take the shape.

    More are faster, and K has to be a multiple of all of them.
    """
    if rows % _TILE_ROWS:
        return None
    return next((tiles for tiles in (8, 4, 2) if columns % (tiles * _TILE_COLUMNS) == 0), None)


class Nibbles:
    """Levels of four bits; the weight is (level - 8) * scale + zero.

    Args:
        levels: (O, K) uint8, 0 to 15, of a shape for which `joined_tiles` is not None.
        scale, zero: (O, K / group) bfloat16.
    """

    def __init__(self, levels: Tensor, scale: Tensor, zero: Tensor) -> None:
        self._rows, self._columns = levels.shape
        tiles = joined_tiles(*levels.shape)
        assert tiles is not None, "asked before"
        self._tiles = tiles
        self._group = self._columns // scale.shape[1]
        self._scale_and_zero = torch.stack([scale, zero], dim=2).transpose(0, 1).contiguous()  # (K / group, O, 2)
        self._packed = _pack(levels, tiles)
        self.nbytes = self._packed.nbytes + self._scale_and_zero.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Return (T, O) for (T, K), both bfloat16."""
        product: Tensor = torch.ops.aten._weight_int4pack_mm(x, self._packed, self._group, self._scale_and_zero)
        return product

    def levels(self) -> Tensor:
        """Return the levels, (O, K) uint8."""
        width = self._tiles * _TILE_COLUMNS
        order = _order(self._tiles, self._packed.device)
        entries = _entries(self._packed).view(-1, _TILE_ROWS * width)[:, order]
        tiled = entries.view(self._rows // _TILE_ROWS, self._columns // width, _TILE_ROWS, width)
        return tiled.transpose(1, 2).reshape(self._rows, self._columns)


class GpuInt4Linear:
    """Weights (O, K) with four bits, and a scale and a zero for each 32 of a row: 5 bits a weight.

    Args:
        levels: (O, K) uint8, 0 to 15.
        scale, zero: (O, K / 32) bfloat16.
        bias: (O,) or None.
        dtype: of `dense`.
    """

    def __init__(self, levels: Tensor, scale: Tensor, zero: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self._nibbles = Nibbles(levels, scale, zero)
        self._scale, self._zero = (part.transpose(0, 1) for part in self._nibbles._scale_and_zero.unbind(2))
        self._bias, self._dtype = bias, dtype
        self.step_bytes = self._nibbles.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        if x.shape[0] <= FEW_ROWS and x.dtype != torch.float32:
            product = self._nibbles(x.to(torch.bfloat16)).to(x.dtype)
        else:
            product = linear(x, self.dense().to(x.dtype))
        return product if self._bias is None else product + self._bias

    def dense(self) -> Tensor:
        """Return the dequantised weights, as the operator rounds them."""
        levels = self._nibbles.levels().view(*self._scale.shape, -1).to(torch.bfloat16) - 8
        return torch.addcmul(self._zero[..., None], levels, self._scale[..., None]).flatten(1).to(self._dtype)

    def native(self) -> None:
        """Return None, as the processor's kernels do not read this layout."""


class GpuInt8Linear:
    """Weights (O, K) with eight bits and one scale for each output.

    Args:
        levels: (O, K) int8.
        scale: (O,), in the dtype of `dense`.
        bias: (O,) or None.
    """

    def __init__(self, levels: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        rows, columns = levels.shape
        group = next(size for size in (_LARGEST_GROUP, 128, 64, GROUP) if columns % size == 0)
        ones = torch.ones(rows, columns // group, dtype=torch.bfloat16, device=levels.device)
        low, high = levels & 15, levels >> 4  # level = 16 * high + low, 0 <= low < 16, -8 <= high < 8
        self._high = Nibbles((high + 8).to(torch.uint8), 16 * ones, torch.zeros_like(ones))
        self._low = Nibbles(low.to(torch.uint8), ones, 8 * ones)
        self._scale, self._bias = scale, bias
        self.step_bytes = self._high.nbytes + self._low.nbytes + scale.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply; the scales apply to the product."""
        if x.shape[0] <= FEW_ROWS and x.dtype != torch.float32:
            rounded = x.to(torch.bfloat16)
            product = ((self._high(rounded).float() + self._low(rounded).float()) * self._scale).to(x.dtype)
        else:
            product = linear(x, self._levels(x.dtype)) * self._scale.to(x.dtype)
        return product if self._bias is None else product + self._bias

    def dense(self) -> Tensor:
        """Return the dequantised weights."""
        return self._levels(self._scale.dtype) * self._scale[:, None]

    def native(self) -> None:
        """Return None, as the processor's kernels do not read this layout."""

    def _levels(self, dtype: torch.dtype) -> Tensor:
        high, low = (part.levels().to(torch.int16) for part in (self._high, self._low))
        return (16 * (high - 8) + low).to(dtype)


def _pack(levels: Tensor, tiles: int) -> Tensor:
    """Return levels (O, K) uint8 in the operator's layout, (O / 8, K / (16 tiles), 32, tiles / 2) int32."""
    pairs = levels.view(levels.shape[0], -1, 2)
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs[..., 0] << 4 | pairs[..., 1], tiles)
    return packed


def _entries(packed: Tensor) -> Tensor:
    """Return the eight levels of each int32, (..., 8) uint8."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=packed.device)
    return ((packed[..., None] >> shifts) & 15).to(torch.uint8)


@cache
def _order(tiles: int, device: torch.device) -> Tensor:
    """Return for each level of a joined tile, row by row, where its entry lies: (128 tiles,) int64.

    The number of each place is packed, a digit of four bits at a time, and read back.
    """
    width = tiles * _TILE_COLUMNS
    with torch.inference_mode(False):  # it outlives this call
        numbers = torch.arange(_TILE_ROWS * width, device=device).view(_TILE_ROWS, width)
        found = torch.zeros(_TILE_ROWS * width, dtype=torch.int64, device=device)
        for digit in range(3):
            packed = _pack(((numbers >> 4 * digit) & 15).to(torch.uint8), tiles)
            found += _entries(packed).flatten().to(torch.int64) << 4 * digit
        return torch.argsort(found)
