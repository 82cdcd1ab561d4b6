"""Weights in the blocks of GGUF files: as they lie in a file, in panels for the kernels, and as numbers.

A block has 32 or 256 columns of a row. Its levels, integers and float16s only change places on their way into panels.
So nothing is rounded a second time; `blocks.h` has the order. In float32 the weights are those of the gguf package. In
bfloat16 they are these, rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.library import loaded_library
from rapid_integrations.kernels.cpu.panels import GROUP, PANEL_ROWS

_FIRST = 16  # what interface.h adds to the numbers that GGUF gives its formats


@dataclass(frozen=True)
class BlockFormat:
    """A format of weights in GGUF files: weight = (level - offset) * scale + minimum.

    Attributes:
        name: as in GGUF.
        number: its number in GGUF.
        bits: of a level.
        offset: what is taken from a level.
        groups: of 32 columns in a block; if there are 8, each has integers that its block's scale is multiplied with.
        minima: whether there are any.
        halves: whether each half of a group has an integer.
        file_bytes: of a block in a file.
        listed: whether levels count the numbers of `FP4_LEVELS`, and scales are bfloat16 in panels.
    """

    name: str
    number: int
    bits: int
    offset: int
    groups: int
    minima: bool
    halves: bool
    file_bytes: int
    listed: bool = False

    @property
    def kind(self) -> int:
        """What it is called in interface.h."""
        return _FIRST + self.number

    @property
    def columns(self) -> int:
        """Columns of a block."""
        return GROUP * self.groups

    @property
    def low_bytes(self) -> int:
        """Bytes of a group's low bits in a panel."""
        return PANEL_ROWS * GROUP // (1 if self.bits == 8 else 2)

    @property
    def high_bits(self) -> int:
        """Bits of a level that lie apart from the low four."""
        return 0 if self.bits == 8 else self.bits - 4

    @property
    def high_bytes(self) -> int:
        """Bytes of a group's high bits in a panel."""
        return self.high_bits * PANEL_ROWS * GROUP // 8

    @property
    def panel_bytes(self) -> int:
        """Bytes of a block of 16 rows in a panel."""
        integers = 2 * PANEL_ROWS if self.groups > 1 else 0
        filled = self.groups * (self.low_bytes + self.high_bytes + integers) + PANEL_ROWS * 2 * (1 + self.minima)
        return -(-filled // 64) * 64 if self.groups > 1 else filled


FORMATS = {
    each.number: each
    for each in (
        BlockFormat("Q4_0", 2, 4, 8, 1, False, False, 18),
        BlockFormat("Q4_1", 3, 4, 0, 1, True, False, 20),
        BlockFormat("Q5_0", 6, 5, 16, 1, False, False, 22),
        BlockFormat("Q5_1", 7, 5, 0, 1, True, False, 24),
        BlockFormat("Q8_0", 8, 8, 128, 1, False, False, 34),
        BlockFormat("Q4_K", 12, 4, 0, 8, True, False, 144),
        BlockFormat("Q5_K", 13, 5, 0, 8, True, False, 176),
        BlockFormat("Q6_K", 14, 6, 32, 8, False, True, 210),
        BlockFormat("MXFP4", 39, 4, 12, 1, False, False, 17, listed=True),
    )
}
"""The formats that the kernels compute with, by their numbers in GGUF."""


FP4_LEVELS = (12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0)
"""Of the sixteen numbers of e2m1: twice their values, and 12 more."""


def pack(form: BlockFormat, raw: Tensor, out: Tensor, order: Tensor | None = None) -> None:
    """Write a weight of a file into panels.

    Args:
        form: of its blocks.
        raw: (O, bytes of a row) uint8, contiguous.
        out: (O / 16 rounded up, blocks of a row, `panel_bytes`) uint8; rows behind the last are zero.
        order: (O,) int64; row i of the panels is row order[i] of the file. None keeps the order.
    """
    library = loaded_library()
    assert library is not None and raw.is_contiguous() and out.is_contiguous()
    assert library.rapid_block_bytes(form.kind) == form.panel_bytes == out.shape[2]
    assert out.shape == panels_shape(form, *raw.shape) and (order is None or len(order) == len(raw))
    address = None if order is None else order.data_ptr()
    columns = out.shape[1] * form.columns
    threads = torch.get_num_threads()
    library.rapid_pack_blocks(form.kind, raw.data_ptr(), address, len(raw), columns, threads, out.data_ptr())


def panels_shape(form: BlockFormat, rows: int, row_bytes: int) -> tuple[int, int, int]:
    """Return the shape of the panels of a weight with so many rows, and so many bytes a row in its file."""
    return -(-rows // PANEL_ROWS), row_bytes // form.file_bytes, form.panel_bytes


def weights_of(form: BlockFormat, panels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weights that panels stand for, (16 panels, K)."""
    count, blocks, _ = panels.shape
    library = loaded_library()
    if library is None or dtype != torch.bfloat16 or panels.device.type != "cpu":
        return _weights(form, panels).to(dtype)
    out = torch.empty(count * PANEL_ROWS, blocks * form.columns, dtype=torch.bfloat16, device="cpu")
    if count:
        threads = torch.get_num_threads()
        library.rapid_unpack_blocks(form.kind, panels.data_ptr(), count, out.shape[1], threads, out.data_ptr())
    return out


def rows_of(form: BlockFormat, raw: Tensor, ids: Tensor) -> Tensor:
    """Return rows of a weight as it lies in a file, (len(ids), K) bfloat16.

    Args:
        form: of its blocks.
        raw: (O, bytes of a row) uint8, contiguous.
        ids: (T,) int64, each below O.
    """
    columns = raw.shape[1] // form.file_bytes * form.columns
    library = loaded_library()
    if library is None:
        return file_weights(form, raw[ids]).bfloat16()
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(raw):
        raise IndexError(f"rows from 0 to {len(raw) - 1} are there, not {int(ids.min())} to {int(ids.max())}")
    ids = ids.contiguous()
    out = torch.empty(len(ids), columns, dtype=torch.bfloat16, device="cpu")
    if len(ids):
        threads = torch.get_num_threads()
        library.rapid_block_rows(form.kind, raw.data_ptr(), ids.data_ptr(), len(ids), columns, threads, out.data_ptr())
    return out


def file_weights(form: BlockFormat, raw: Tensor) -> Tensor:
    """Return the weights of rows as they lie in a file, (O, K) float32, as the gguf package computes them."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return torch.from_numpy(dequantize(raw.numpy(), GGMLQuantizationType(form.number)))


def _weights(form: BlockFormat, panels: Tensor) -> Tensor:
    """Do `weights_of` in float32 with PyTorch's operators."""
    count, blocks, _ = panels.shape
    groups = form.groups
    sizes = [groups * form.low_bytes, groups * form.high_bytes, groups * 2 * PANEL_ROWS if groups > 1 else 0]
    low, high, integers, figures = torch.split(panels, [*sizes, form.panel_bytes - sum(sizes)], dim=2)
    levels = low.reshape(count, blocks, groups, -1, PANEL_ROWS, 4)  # (..., four columns, row, column)
    if form.bits != 8:
        levels = torch.stack([levels & 15, levels >> 4], dim=4).flatten(3, 4)
    if form.high_bits:
        shifts = torch.arange(0, 8, form.high_bits, dtype=torch.uint8)[:, None, None]
        parts = high.reshape(count, blocks, groups, form.high_bits, 1, PANEL_ROWS, 4) >> shifts
        levels = levels | (parts & 2**form.high_bits - 1).flatten(3, 4) << 4
    if form.listed:
        levels = torch.tensor(FP4_LEVELS, dtype=torch.uint8)[levels.long()]
    ordered = levels.permute(0, 4, 1, 2, 3, 5).reshape(count, PANEL_ROWS, blocks, groups, GROUP)
    numbers: Tensor = ordered.float() - form.offset  # (panel, row, block, group, column)

    def of_rows(halves: Tensor) -> Tensor:
        kind = torch.bfloat16 if form.listed else torch.float16
        return halves.contiguous().view(kind).float().transpose(1, 2)[..., None]  # (panel, row, block, 1)

    scale = of_rows(figures[..., : 2 * PANEL_ROWS])
    minimum = of_rows(figures[..., 2 * PANEL_ROWS : 4 * PANEL_ROWS]) if form.minima else None
    if groups > 1:
        if form.halves:
            integers = integers.contiguous().view(torch.int8)
        pair = integers.reshape(count, blocks, groups, 2, PANEL_ROWS).permute(3, 0, 4, 1, 2).float()
        if form.halves:
            scale = torch.stack([scale * pair[0], scale * pair[1]], dim=-1)  # (panel, row, block, group, half)
            scale = scale.repeat_interleave(GROUP // 2, dim=-1)
            return (numbers * scale).reshape(count * PANEL_ROWS, -1)
        scale = scale * pair[0]
        minimum = None if minimum is None else minimum * pair[1]
    numbers = numbers * scale[..., None]
    if minimum is not None:
        numbers = numbers + minimum[..., None]
    return numbers.reshape(count * PANEL_ROWS, -1)
