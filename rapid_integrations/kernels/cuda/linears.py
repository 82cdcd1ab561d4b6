"""Quantised weights on a GPU, multiplied by this package's Triton kernels for few rows and for many."""

from __future__ import annotations

import torch
from torch import Tensor

from rapid_integrations.kernels.cuda.availability import why_not_cuda


class TritonInt8Linear:
    """Weights (O, K) as int8 with one scale for each output.

    Args:
        levels: (O, K) int8.
        scales: (O,), in the dtype of the products.
        bias: (O,) or None.
    """

    def __init__(self, levels: Tensor, scales: Tensor, bias: Tensor | None = None) -> None:
        from rapid_integrations.kernels.cuda.products import int8_product

        self._product = int8_product
        self._levels, self._scales, self._bias = levels.contiguous(), scales.contiguous(), bias
        self.step_bytes = levels.nbytes + scales.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        return self._product(x, self._levels, self._scales, self._bias)

    def dense(self) -> Tensor:
        """Return the dequantised weights."""
        return self._levels.to(self._scales.dtype) * self._scales[:, None]

    def native(self) -> None:
        """Return None, as the kernels for processors read other layouts."""


class TritonInt4Linear:
    """Weights (O, K) as four-bit integers with a scale and an offset for each 32 of a row: 5 bits a weight.

    Args:
        levels: (O, K) uint8, 0 to 15; K is a multiple of 32.
        scales, zeros: (O, K / 32); a weight is (level - 8) * scale + zero.
        bias: (O,) or None.
        dtype: of the weights that `dense` returns.
    """

    def __init__(self, levels: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        from rapid_integrations.kernels.cuda.products import int4_product, packed_int4, unpacked_int4

        self._product, self._unpacked = int4_product, unpacked_int4
        self._packed = packed_int4(levels)
        self._scales, self._zeros, self._bias, self._dtype = scales.contiguous(), zeros.contiguous(), bias, dtype
        self.step_bytes = self._packed.nbytes + scales.nbytes + zeros.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        return self._product(x, self._packed, self._scales, self._zeros, self._bias)

    def dense(self) -> Tensor:
        """Return the dequantised weights."""
        levels = self._unpacked(self._packed).float()
        groups = self._scales.shape[1]
        by_group = (levels - 8).view(len(levels), groups, -1)
        return (by_group * self._scales.float()[..., None] + self._zeros.float()[..., None]).flatten(1).to(self._dtype)

    def native(self) -> None:
        """Return None, as the kernels for processors read other layouts."""


def multiplied_by_triton(weight: Tensor) -> bool:
    """Return whether the products with a quantised weight run on Triton's kernels."""
    return not why_not_cuda(weight.device)
