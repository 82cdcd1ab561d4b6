"""Matrix products with a model's weights, stored in the form that makes few-row products cheap.

A decode step reads every weight once for one to sixteen rows of input, so the form of the weights decides its speed:

- `PlainLinear`: as PyTorch has them.
- `PackedLinear`: bfloat16 in oneDNN's own layout, on processors. The library otherwise rearranges a weight at every
  product: 6.2 ms instead of 3.4 for (1, 576) x (576, 49152) on one core (docs/log/).
- `Int8Linear`, `Int4Linear`: weight-only quantisation with PyTorch's packed kernels; many rows (prefill) are multiplied
  with weights that are dequantised on the fly.

Where this package's own kernels run the steps (`native`), they read plain rows, and nothing is packed for PyTorch's.
"""

from __future__ import annotations

from typing import Protocol, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from rapid_integrations.cache.arena import Arena
from rapid_integrations.config import Quantization
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.kernels.cpu import NativeMatrix
from rapid_integrations.kernels.cpu.panels import GROUP, PANEL_ROWS, to_panels, weights_of

QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)

_WHOLE_VECTORS = 32  # columns that every processor's vectors of integers divide
_FEW_ROWS = 16  # rows up to which the packed kernels beat dequantising


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

    def native(self) -> NativeMatrix | None:
        """Return the weight for this package's kernels; None where it lies in another form."""
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

    def native(self) -> NativeMatrix | None:
        """Return the weights themselves."""
        return NativeMatrix(self._weight, bias=self._bias)


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

    def native(self) -> None:
        """The layout is oneDNN's."""

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

    def __init__(self, weight: Tensor, bias: Tensor | None = None, arena: Arena | None = None) -> None:
        scale = weight.float().abs().amax(dim=1).clamp(min=1e-8) / 127
        self._columns = weight.shape[1]
        # PyTorch's kernel reads whole vectors of a row: behind the end of one whose width is no multiple of theirs.
        self._beyond = -self._columns % _WHOLE_VECTORS
        self._ints = pad((weight.float() / scale[:, None]).round().to(torch.int8), (0, self._beyond))
        self._scale = scale.to(weight.dtype)
        if arena is not None:
            self._ints, self._scale = arena.copy(self._ints), arena.copy(self._scale)
        self._bias = bias
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
        self.step_bytes = self._ints.nbytes + self._scale.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply; the scales apply to the product."""
        if self._packed and x.shape[0] <= _FEW_ROWS:
            whole = pad(x, (0, self._beyond)) if self._beyond else x.contiguous()
            product: Tensor = torch.ops.aten._weight_int8pack_mm(whole, self._ints, self._scale)
        else:
            product = linear(x, self._ints[:, : self._columns].to(x.dtype)) * self._scale
        return product if self._bias is None else product + self._bias

    def dense(self) -> Tensor:
        """Return the quantised weights as numbers."""
        return self._ints[:, : self._columns].to(self._scale.dtype) * self._scale[:, None]

    def native(self) -> NativeMatrix | None:
        """Return integers and scales; None where rows are longer than their weights."""
        return None if self._beyond else NativeMatrix(self._ints, self._scale, bias=self._bias)


class Int4Linear:
    """Weights (O, K) as four-bit integers with a scale and an offset for each 32 of a row: 5 bits a weight.

    Where PyTorch's kernels multiply few rows, the integers are held once more in their layout: 9 bits in all.

    Scale and offset span each group's smallest and largest weight, so that weights from a GGUF file with blocks of 32
    and a minimum (Q4_1) fall on the very levels they came from, up to the rounding of the scales to bfloat16.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, arena: Arena | None = None) -> None:
        rows, columns = weight.shape
        grouped = weight.float().view(rows, columns // GROUP, GROUP)
        low, high = grouped.amin(dim=2), grouped.amax(dim=2)
        scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()  # (O, K / 32)
        zero = (low + 8 * scale.float()).bfloat16()  # the weight of level 8
        levels = ((grouped - zero.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15)
        levels = levels.to(torch.uint8)
        self._panels, self._bias = to_panels(levels, scale, zero), bias
        self._few = None if arena is not None else _PackedInt4(levels.view(rows, columns), scale, zero)
        if arena is not None:
            self._panels = arena.copy(self._panels)
        self.step_bytes = self._panels.nbytes

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Whether the shape fits the kernels."""
        return weight.shape[1] % GROUP == 0 and weight.shape[0] % PANEL_ROWS == 0

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        if self._few is not None and x.shape[0] <= _FEW_ROWS and x.dtype == torch.bfloat16:
            product = self._few(x)
        else:
            product = linear(x, self.dense().to(x.dtype))
        return product if self._bias is None else product + self._bias

    def dense(self) -> Tensor:
        """Return the quantised weights as numbers."""
        return weights_of(self._panels)

    def native(self) -> NativeMatrix | None:
        """Return the panels."""
        return NativeMatrix(self._panels, bias=self._bias)


class _PackedInt4:
    """Four-bit levels in the layout of PyTorch's kernels, for products with few rows of bfloat16."""

    def __init__(self, levels: Tensor, scale: Tensor, zero: Tensor) -> None:
        self._scale_and_zero = torch.stack([scale, zero], dim=2).transpose(0, 1).contiguous()  # (K / 32, O, 2)
        if levels.device.type == "cpu":
            self._packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.to(torch.int32), 1)
            self._product = torch.ops.aten._weight_int4pack_mm_for_cpu
        else:
            pairs = levels.view(levels.shape[0], -1, 2)
            self._packed = torch.ops.aten._convert_weight_to_int4pack(pairs[..., 0] << 4 | pairs[..., 1], 8)
            self._product = torch.ops.aten._weight_int4pack_mm

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = self._product(x, self._packed, GROUP, self._scale_and_zero)
        return product


def make_linear(
    weight: Tensor, bias: Tensor | None, quantization: Quantization | None, *, arena: Arena | None = None
) -> Linear:
    """Return the best form of a weight on its device.

    A weight whose shape the int4 kernels do not take is stored as int8.

    Args:
        weight: (O, K).
        bias: (O,) or None.
        quantization: None keeps every bit.
        arena: where the numbers shall lie for this package's kernels, to which products with few rows are left then.

    Raises:
        ConfigurationError: no such quantisation.
    """
    if quantization not in (None, *QUANTIZATIONS):
        raise ConfigurationError(f"quantization={quantization!r} is none of {', '.join(QUANTIZATIONS)}; None keeps all")
    if quantization == "int4" and Int4Linear.serves(weight):
        return Int4Linear(weight, bias, arena)
    if quantization is not None:
        return Int8Linear(weight, bias, arena)
    if arena is not None:
        return PlainLinear(arena.copy(weight), bias)
    if not PackedLinear.serves(weight):
        return PlainLinear(weight, bias)
    return PackedLinear(weight, bias)
