"""Matrix products with a model's weights, stored in the form that makes products with few rows cheap.

A decode step reads every weight once for one to sixteen rows of input, so the form of the weights decides its speed:

- `PlainLinear` keeps PyTorch's layout.
- `PackedLinear` holds bfloat16 in oneDNN's own layout, on CPUs. Otherwise oneDNN rearranges a weight at every product:
  6.2 ms instead of 3.4 for (1, 576) x (576, 49152) on one core (docs/log/).
- `Int8Linear` and `Int4Linear` quantise only the weights, with PyTorch's packed kernels. For many rows (prefill) the
  weights are dequantised on the fly.
- `GpuInt8Linear` and `GpuInt4Linear` do the same on NVIDIA's GPUs (`gpu_linear.py`).

If this package's own kernels run the steps (`kernels.cpu`), they read plain rows of bfloat16 and panels of integers,
and nothing is packed for PyTorch. Their products with integers round the inputs to eight bits, and to
sixteen where they stand out (`kernels/cpu/panels.h`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from rapid_integrations.cache.arena import Arena
from rapid_integrations.config import Quantization
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.kernels import cuda
from rapid_integrations.kernels.cpu.matrices import AnyMatrix, NativeMatrix, prompt_product, takes_prompts
from rapid_integrations.kernels.cpu.panels import GROUP, PANEL_ROWS, int4_panels, int8_panels, weights_of
from rapid_integrations.models.gpu_linear import GpuInt4Linear, GpuInt8Linear, integers_multiplied

QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)

_WHOLE_VECTORS = 32  # columns; a multiple of the integer vector width of every processor
_FEW_ROWS = 16  # rows up to which the packed kernels beat dequantising


class Linear(Protocol):
    """x -> x W^T + b."""

    step_bytes: int
    """Bytes that a product with one row reads."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return (T, O) for (T, K), in the dtype of `x`."""
        ...

    def dense(self) -> Tensor:
        """Return W, (O, K), with the values that the product uses."""
        ...

    def native(self) -> AnyMatrix | None:
        """Return the weight for this package's kernels, or None if it is stored in another form."""
        ...


def native_matrix(product: Linear) -> AnyMatrix:
    """Return the weight of a product that was made for this package's kernels."""
    matrix = product.native()
    assert matrix is not None
    return matrix


def multiplied(x: Tensor, matrix: AnyMatrix | None, weight: Callable[[], Tensor], bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b, (T, O): a row of bfloat16 has the same bits on a processor, however many others there are.

    PyTorch's products have them only for several rows, and on vectors. So one row is computed as two. This package's
    own kernel multiplies if the processor has matrix units (docs/log/2026-11-28-matrix-units.md), or if PyTorch
    emulates bfloat16 on it (docs/log/2026-11-29-avx2.md).

    Args:
        x: (T, K).
        matrix: W and b for the kernels, None if W is stored in another form.
        weight: returns W, (O, K), if it is needed.
        bias: b, (O,).
    """
    if matrix is not None and takes_prompts(x, matrix.columns):
        return prompt_product(matrix, x)
    if len(x) == 1 and x.dtype == torch.bfloat16 and x.device.type == "cpu":
        return linear(x.expand(2, -1), weight(), bias)[:1]
    return linear(x, weight(), bias)


class PlainLinear:
    """Weights (O, K) in PyTorch's layout, without a copy."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias
        self.step_bytes = weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        return multiplied(x, self.native(), self.dense, self._bias)

    def dense(self) -> Tensor:
        """Return the weights themselves."""
        return self._weight

    def native(self) -> NativeMatrix | None:
        """Return the weights themselves, or None if the kernels do not read them where they are."""
        plain = self._weight.dtype == torch.bfloat16 and self._weight.is_contiguous()
        return NativeMatrix(self._weight, bias=self._bias) if plain else None


class PackedLinear:
    """bfloat16 weights (O, K) in oneDNN's layout, on the CPU. This layout works for any number of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        self._bias = bias
        self.step_bytes = weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return product

    def dense(self) -> Tensor:
        """Return an exact copy of the weights in the usual layout."""
        dense: Tensor = self._packed.to_dense()
        return dense

    def native(self) -> None:
        """Return None, as the kernels do not read oneDNN's layout."""

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Return whether this weight can be packed on this machine."""
        return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _onednn_packs()


@lru_cache(maxsize=1)
def _onednn_packs() -> bool:
    """Return whether oneDNN has a layout for bfloat16 on this processor; it refuses those without AVX-512, for one."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        torch.ops.mkldnn._reorder_linear_weight(torch.zeros(16, 32, dtype=torch.bfloat16), 1)
    except RuntimeError:
        return False
    return True


class Int8Linear:
    """Weights (O, K) as int8 with one scale for each output, in half the bytes of bfloat16.

    They lie in rows for PyTorch's kernels, and in panels for this package's.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, arena: Arena | None = None) -> None:
        levels, scale = int8_levels(weight)
        self._scale, self._bias = scale.to(weight.dtype), bias
        self._rows, self._columns = weight.shape
        # PyTorch's kernel reads whole vectors, and would read beyond rows whose width is not a multiple of theirs.
        self._beyond = -self._columns % _WHOLE_VECTORS
        self._ints = pad(levels, (0, self._beyond)) if arena is None else None
        self._panels: Tensor | None = None
        if arena is not None:
            self._panels, self._scale = arena.copy(int8_panels(levels)), arena.copy(self._scale)
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
        self.step_bytes = weight.shape[0] * (self._columns + self._beyond) + self._scale.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply; the scales apply to the product."""
        if self._packed and self._ints is not None and x.shape[0] <= _FEW_ROWS:
            whole = pad(x, (0, self._beyond)) if self._beyond else x.contiguous()
            product: Tensor = torch.ops.aten._weight_int8pack_mm(whole, self._ints, self._scale)
        elif (matrix := self.native()) is not None and takes_prompts(x, self._columns):
            return prompt_product(matrix, x)
        else:
            product = multiplied(x, None, lambda: self._levels(x.dtype)) * self._scale
        return product if self._bias is None else product + self._bias

    def dense(self) -> Tensor:
        """Return the dequantised weights."""
        return self._levels(self._scale.dtype) * self._scale[:, None]

    def native(self) -> NativeMatrix | None:
        """Return panels and scales, or None if the weights lie in rows."""
        return None if self._panels is None else NativeMatrix(self._panels, self._scale, bias=self._bias)

    def _levels(self, dtype: torch.dtype) -> Tensor:
        """Return (O, K), the integers as numbers of this dtype."""
        if self._panels is not None:
            return weights_of(self._panels)[: self._rows].to(dtype)
        assert self._ints is not None
        return self._ints[:, : self._columns].to(dtype)


class Int4Linear:
    """Weights (O, K) as four-bit integers with a scale and an offset for each 32 of a row: 5 bits a weight.

    If PyTorch's kernels multiply few rows, a second copy of the integers is held in their layout: 9 bits in all.

    Scale and offset span each group's smallest and largest weight. So weights from a GGUF file with blocks of 32 and a
    minimum (Q4_1) keep their exact levels, up to the rounding of the scales to bfloat16.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, arena: Arena | None = None) -> None:
        rows, columns = weight.shape
        levels, scale, zero = int4_levels(weight)
        self._panels, self._bias = int4_panels(levels, scale, zero), bias
        packs = arena is None and weight.device.type == "cpu"
        self._few = _PackedInt4(levels.view(rows, columns), scale, zero) if packs else None
        if arena is not None:
            self._panels = arena.copy(self._panels)
        self.step_bytes = self._panels.nbytes

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Return whether the shape fits the kernels."""
        return weight.shape[1] % GROUP == 0 and weight.shape[0] % PANEL_ROWS == 0

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        if self._few is not None and x.shape[0] <= _FEW_ROWS and x.dtype == torch.bfloat16:
            product = self._few(x.contiguous())
        else:
            return multiplied(x, self.native(), lambda: self.dense().to(x.dtype), self._bias)
        return product if self._bias is None else product + self._bias

    def dense(self) -> Tensor:
        """Return the dequantised weights."""
        return weights_of(self._panels)

    def native(self) -> NativeMatrix | None:
        """Return the weights as panels for this package's kernels."""
        return NativeMatrix(self._panels, bias=self._bias)


class _PackedInt4:
    """Four-bit levels in the layout of PyTorch's kernels on processors, for products with few rows of bfloat16."""

    def __init__(self, levels: Tensor, scale: Tensor, zero: Tensor) -> None:
        self._scale_and_zero = torch.stack([scale, zero], dim=2).transpose(0, 1).contiguous()  # (K / 32, O, 2)
        self._packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.to(torch.int32), 1)

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self._packed, GROUP, self._scale_and_zero)
        return product


def int8_levels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return levels (O, K) int8 and scales (O,) float32 of a weight: it is about level * scale."""
    scale = weight.float().abs().amax(dim=1).clamp(min=1e-8) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def int4_levels(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return levels (O, K / 32, 32) uint8, scales and zeros (O, K / 32) bfloat16: about (level - 8) * scale + zero."""
    rows, columns = weight.shape
    grouped = weight.float().view(rows, columns // GROUP, GROUP)
    low, high = grouped.amin(dim=2), grouped.amax(dim=2)
    scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()  # (O, K / 32)
    zero = (low + 8 * scale.float()).bfloat16()  # the weight of level 8
    levels = ((grouped - zero.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15)
    return levels.to(torch.uint8), scale, zero


def make_linear(
    weight: Tensor, bias: Tensor | None, quantization: Quantization | None, *, arena: Arena | None = None
) -> Linear:
    """Return the best form of a weight on its device.

    A weight whose shape the int4 kernels do not support is stored as int8.

    Args:
        weight: (O, K).
        bias: (O,) or None.
        quantization: None keeps the weights exact.
        arena: memory for the weights of this package's kernels, which then compute products with few rows.

    Raises:
        ConfigurationError: the quantisation is unknown.
    """
    if quantization in QUANTIZATIONS and arena is None and cuda.multiplied_by_triton(weight):
        return _for_triton(weight, bias, quantization)
    if quantization not in (None, *QUANTIZATIONS):
        raise ConfigurationError(f"quantization={quantization!r} is not one of {', '.join(QUANTIZATIONS)} and None")
    if quantization is not None and integers_multiplied(weight):
        levels, scale, zero = int4_levels(weight) if quantization == "int4" else (*int8_levels(weight), None)
        if zero is None:
            return GpuInt8Linear(levels, scale.to(weight.dtype), bias)
        return GpuInt4Linear(levels.flatten(1), scale, zero, bias, weight.dtype)
    if quantization == "int4" and Int4Linear.serves(weight):
        return Int4Linear(weight, bias, arena)
    if quantization is not None:
        return Int8Linear(weight, bias, arena)
    if arena is not None:
        return PlainLinear(arena.copy(weight), bias)
    if not PackedLinear.serves(weight):
        return PlainLinear(weight, bias)
    return PackedLinear(weight, bias)


def _for_triton(weight: Tensor, bias: Tensor | None, quantization: Quantization) -> Linear:
    if quantization == "int4" and weight.shape[1] % GROUP == 0:
        levels, scale, zero = int4_levels(weight)
        return cuda.TritonInt4Linear(levels.flatten(1), scale, zero, bias, weight.dtype)
    levels, scale = int8_levels(weight)
    return cuda.TritonInt8Linear(levels, scale.to(weight.dtype), bias)
