"""Weights as the kernels read them, and the structs that say so."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.blocks import BlockFormat
from rapid_integrations.kernels.cpu.interface import Matrix
from rapid_integrations.kernels.cpu.library import loaded_library, multiplies_prompts
from rapid_integrations.kernels.cpu.panels import GROUP, PANEL_ROWS, kind_of

BF16, PARTS = 0, 3  # as in interface.h


@dataclass(frozen=True)
class NativeMatrix:
    """A weight (O, K) as the kernels read it.

    `data` is bfloat16 (O, K), or uint8 (O / 16, K / 32, bytes of a group): panels of eight or four bits (`panels.py`).
    `scale` is bfloat16 (O,) for eight bits, and None otherwise. `bias` is (O,) bfloat16 or None.
    """

    data: Tensor
    scale: Tensor | None = None
    bias: Tensor | None = None

    @property
    def rows(self) -> int:
        """O."""
        if self.scale is not None:
            return self.scale.shape[0]  # the last panel may be filled up
        return self.data.shape[0] * (PANEL_ROWS if self.kind else 1)

    @property
    def columns(self) -> int:
        """K."""
        return self.data.shape[1] * (GROUP if self.kind else 1)

    @property
    def kind(self) -> int:
        """What it is called in interface.h."""
        return kind_of(self.data) if self.data.dtype == torch.uint8 else BF16


@dataclass(frozen=True)
class NativeBlocks:
    """A weight (O, K) in the blocks of a GGUF file, in panels (`blocks.pack`).

    `data` is uint8 (O / 16 rounded up, blocks of a row, bytes of a block). `bias` is (O,) bfloat16 or None.
    """

    form: BlockFormat
    data: Tensor
    rows: int
    bias: Tensor | None = None

    @property
    def columns(self) -> int:
        """K."""
        return self.data.shape[1] * self.form.columns

    @property
    def kind(self) -> int:
        """What it is called in interface.h."""
        return self.form.kind


@dataclass(frozen=True)
class NativeParts:
    """A weight that consists of others, one below the other. Each but the last has a multiple of 16 rows."""

    parts: tuple[NativeMatrix | NativeBlocks, ...]

    @property
    def rows(self) -> int:
        """O."""
        return sum(part.rows for part in self.parts)

    @property
    def columns(self) -> int:
        """K."""
        return self.parts[0].columns

    @cached_property
    def array(self) -> ctypes.Array[Matrix]:
        """Their structs, to whose address another struct points."""
        return (Matrix * len(self.parts))(*map(matrix_of, self.parts))


@dataclass(frozen=True)
class NativeTable:
    """An embedding table: bfloat16 (V, E), or uint8 (V, bytes of a row), rows of blocks as they lie in a GGUF file."""

    data: Tensor
    form: BlockFormat | None = None

    @property
    def kind(self) -> int:
        """What it is called in interface.h."""
        return BF16 if self.form is None else self.form.kind


AnyMatrix: TypeAlias = NativeMatrix | NativeBlocks | NativeParts


def address_of(tensor: Tensor | None) -> int | None:
    """Return where a tensor's numbers lie; the tensor has to be held as long as the address is used."""
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def matrix_of(matrix: AnyMatrix) -> Matrix:
    """Return the struct of a weight, which has to be held as long as the struct is used."""
    if isinstance(matrix, NativeParts):
        array = matrix.array
        return Matrix(
            kind=PARTS, rows=matrix.rows, columns=matrix.columns, parts=len(array), data=ctypes.addressof(array)
        )
    scale = matrix.scale if isinstance(matrix, NativeMatrix) else None
    return Matrix(
        kind=matrix.kind,
        rows=matrix.rows,
        columns=matrix.columns,
        data=address_of(matrix.data),
        scale=address_of(scale),
        bias=address_of(matrix.bias),
    )


def product(matrix: AnyMatrix, x: Tensor) -> Tensor:
    """Return x W^T + b, (T, O) float32, as a decode step computes it.

    Args:
        matrix: W.
        x: (T, K) bfloat16.
    """
    library = loaded_library()
    assert library is not None and x.dtype == torch.bfloat16 and x.shape[1] == matrix.columns
    x, struct = x.contiguous(), matrix_of(matrix)
    out = torch.empty(len(x), matrix.rows, dtype=torch.float32, device="cpu")
    threads = torch.get_num_threads()
    if len(x) and library.rapid_product(ctypes.byref(struct), x.data_ptr(), len(x), threads, out.data_ptr()):
        raise MemoryError("a product found no memory for its rounded inputs")
    return out


def takes_prompts(x: Tensor, columns: int) -> bool:
    """Whether `prompt_product` takes inputs with so many columns, and is the fastest product on this processor."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and columns % GROUP == 0 and multiplies_prompts()


def prompt_product(matrix: AnyMatrix, x: Tensor) -> Tensor:
    """Return x W^T + b, (T, O) bfloat16, for many rows at a time; see prompt_product.cpp.

    A row's bits do not depend on the other rows, nor on the number of threads.

    Args:
        matrix: W.
        x: (T, K) bfloat16, as `takes_prompts` has it.
    """
    library = loaded_library()
    assert library is not None and x.shape[1] == matrix.columns
    x, struct = x.contiguous(), matrix_of(matrix)
    out = torch.empty(len(x), matrix.rows, dtype=torch.bfloat16, device="cpu")
    threads = torch.get_num_threads()
    if len(x) and library.rapid_prompt_product(ctypes.byref(struct), x.data_ptr(), len(x), threads, out.data_ptr()):
        raise MemoryError("a product found no memory for its inputs")
    return out
