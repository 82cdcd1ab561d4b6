"""Matrix products with a model's weights, stored in the form that makes few-row products cheap.

A decode step reads every weight once for one to sixteen rows of input, so the form of the weights decides its speed:

- `PlainLinear`: as PyTorch has them.
- `PackedLinear`: bfloat16 in oneDNN's own layout, on processors. The library otherwise rearranges a weight at every
  product: 6.2 ms instead of 3.4 for (1, 576) x (576, 49152) on one core (docs/LOG.md).
- `Int8Linear`, `Int4Linear`: weight-only quantisation with PyTorch's packed kernels; many rows (prefill) are multiplied
  with weights that are dequantised on the fly.
"""

from __future__ import annotations

from typing import Protocol, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear

from rapid_integrations.config import Quantization
from rapid_integrations.errors import ConfigurationError

QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)

INT4_GROUP = 32  # weights that share a scale and an offset; also the block of GGUF's 4-bit formats
_FEW_ROWS = 16  # rows up to which the packed kernels beat dequantising
_INT4_ROWS = 16  # rows of a weight that the packed int4 kernels treat together


class Linear(Protocol):
    """x -> x W^T + b."""

    step_bytes: int
    """What a product with one row reads."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return (T, O) for (T, K), in the dtype of `x`."""
        ...

    def dense(self) -> Tensor:
        """Return W, (O, K), as it takes part in the product."""
        ...


class PlainLinear:
    """Weights (O, K) as they are; nothing is copied."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias
        self.step_bytes = weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        return linear(x, self._weight, self._bias)

    def dense(self) -> Tensor:
        """Return the weights themselves."""
        return self._weight


class PackedLinear:
    """bfloat16 weights (O, K) in oneDNN's layout, on the CPU. The layout serves every number of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        self._bias = bias
        self.step_bytes = weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return product

    def dense(self) -> Tensor:
        """Return the weights in the usual layout: a copy, bit for bit."""
        dense: Tensor = self._packed.to_dense()
        return dense

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Whether this weight can be packed here."""
        return (
            weight.device.type == "cpu"
            and weight.dtype == torch.bfloat16
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )


class Int8Linear:
    """Weights (O, K) as int8 with one scale for each output: half the bytes of bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        scale = weight.float().abs().amax(dim=1).clamp(min=1e-8) / 127
        self._ints = (weight.float() / scale[:, None]).round().to(torch.int8)
        self._scale = scale.to(weight.dtype)
        self._bias = bias
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
        self.step_bytes = self._ints.nbytes + self._scale.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply; the scales apply to the product."""
        if self._packed and x.shape[0] <= _FEW_ROWS:
            product: Tensor = torch.ops.aten._weight_int8pack_mm(x, self._ints, self._scale)
        else:
            product = linear(x, self._ints.to(x.dtype)) * self._scale
        return product if self._bias is None else product + self._bias

    def dense(self) -> Tensor:
        """Return the quantised weights as numbers."""
        return self._ints.to(self._scale.dtype) * self._scale[:, None]


class Int4Linear:
    """Weights (O, K) as four-bit integers with a scale and an offset for each 32 of a row: 5 bits a weight.

    They are held twice, for few rows in the kernel's own layout and for many in pairs: 9 bits in all.

    Scale and offset span each group's smallest and largest weight, so that weights from a GGUF file with blocks of 32
    and a minimum (Q4_1) fall on the very levels they came from, up to the rounding of the scales to bfloat16.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        rows, columns = weight.shape
        grouped = weight.float().view(rows, columns // INT4_GROUP, INT4_GROUP)
        low, high = grouped.amin(dim=2), grouped.amax(dim=2)
        scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()
        # The kernels compute (level - 8) * scale + zero.
        zero = (low + 8 * scale.float()).bfloat16()
        levels = ((grouped - zero.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15)
        self._levels = levels.view(rows, columns).to(torch.int32)
        self._scale_and_zero = torch.stack([scale, zero], dim=2).transpose(0, 1).contiguous()  # (K / 32, O, 2)
        self._shape, self._dtype, self._bias = (rows, columns), weight.dtype, bias
        self._packed = self._pack(weight.device)
        halves = self._levels.view(rows, columns // 2, 2).to(torch.uint8)
        self._pairs = halves[..., 0] | halves[..., 1] << 4  # for many rows; unpacked in a moment
        del self._levels
        self.step_bytes = self._packed.nbytes + self._scale_and_zero.nbytes

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Whether the shape fits the kernels."""
        return weight.shape[1] % INT4_GROUP == 0 and weight.shape[0] % _INT4_ROWS == 0

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        if x.shape[0] <= _FEW_ROWS and x.dtype == torch.bfloat16:
            product = self._few(x)
        else:
            product = linear(x, self.dense().to(x.dtype))
        return product if self._bias is None else product + self._bias

    def dense(self) -> Tensor:
        """Return the quantised weights as numbers."""
        rows, columns = self._shape
        levels = torch.stack([self._pairs & 15, self._pairs >> 4], dim=2).view(rows, columns // INT4_GROUP, INT4_GROUP)
        scale, zero = self._scale_and_zero.transpose(0, 1).unbind(dim=2)  # (O, K / 32) each
        return torch.addcmul(zero[..., None], levels.to(torch.bfloat16) - 8, scale[..., None]).reshape(rows, columns)

    def _pack(self, device: torch.device) -> Tensor:
        if device.type == "cpu":
            packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(self._levels, 1)
        else:
            halves = self._levels.view(self._shape[0], -1, 2).to(torch.uint8)
            packed = torch.ops.aten._convert_weight_to_int4pack(halves[..., 0] << 4 | halves[..., 1], 8)
        return packed

    def _few(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                x, self._packed, INT4_GROUP, self._scale_and_zero
            )
        else:
            product = torch.ops.aten._weight_int4pack_mm(x, self._packed, INT4_GROUP, self._scale_and_zero)
        return product


def make_linear(weight: Tensor, bias: Tensor | None, quantization: Quantization | None) -> Linear:
    """Return the best form of a weight on its device.

    A weight whose shape the int4 kernels do not take is stored as int8.

    Args:
        weight: (O, K).
        bias: (O,) or None.
        quantization: None keeps every bit.

    Raises:
        ConfigurationError: no such quantisation.
    """
    if quantization not in (None, *QUANTIZATIONS):
        raise ConfigurationError(f"quantization={quantization!r} is none of {', '.join(QUANTIZATIONS)}; None keeps all")
    if quantization == "int4" and Int4Linear.serves(weight):
        return Int4Linear(weight, bias)
    if quantization is not None:
        return Int8Linear(weight, bias)
    return PackedLinear(weight, bias) if PackedLinear.serves(weight) else PlainLinear(weight, bias)
