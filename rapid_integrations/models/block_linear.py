"""Matrix products with weights that are kept in the blocks of a GGUF file, and embeddings from such a table.

Decode steps run on the kernels, which read the blocks and round their inputs (`kernels/cpu/panels.h`).
For a prompt the weights are turned into bfloat16, a few megabytes at a time. That holds for few rows too, so that a
prompt's rows are computed in one way, whatever pieces it is read in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from rapid_integrations.cache.arena import Arena
from rapid_integrations.kernels.cpu.blocks import BlockFormat, file_weights, pack, panels_shape, rows_of, weights_of
from rapid_integrations.kernels.cpu.matrices import (
    AnyMatrix,
    NativeBlocks,
    NativeParts,
    NativeTable,
    prompt_product,
    takes_prompts,
)
from rapid_integrations.kernels.cpu.panels import PANEL_ROWS
from rapid_integrations.models.linear import Linear

_READ = 1 << 24  # bytes of a file that are read at once
_TILE = 1 << 22  # bytes of bfloat16 that are computed at once; in fresh memory it takes seven times as long


@dataclass(frozen=True)
class StoredBlocks:
    """A weight (O, K) as it lies in a file.

    Attributes:
        form: of its blocks.
        raw: (O, bytes of a row) uint8, mapped from the file.
        order: (O,) int64; row i of the weight is row order[i] of `raw`. None keeps the order.
        release: lets go of the memory that holds what was read of `raw`.
    """

    form: BlockFormat
    raw: Tensor
    order: Tensor | None
    release: Callable[[], None]

    @property
    def shape(self) -> tuple[int, int]:
        """(O, K)."""
        return len(self.raw), self.raw.shape[1] // self.form.file_bytes * self.form.columns

    def first(self, rows: int) -> StoredBlocks:
        """Return the first rows as a weight of their own."""
        assert self.order is None
        return StoredBlocks(self.form, self.raw[:rows], None, self.release)

    def some(self, rows: Tensor) -> StoredBlocks:
        """Return some rows, (o,) int64, as a weight of their own."""
        return SomeRows(self, rows)

    def rounded(self) -> Tensor:
        """Return the weights, (O, K) bfloat16, computed by the kernels."""
        return rows_of(self.form, self.raw, torch.arange(len(self.raw)) if self.order is None else self.order)

    def dense(self) -> Tensor:
        """Return the weights, (O, K) float32, computed by the gguf package."""
        weights = file_weights(self.form, self.raw)
        return weights if self.order is None else weights[self.order]


class SomeRows(StoredBlocks):
    """Some rows of a weight in blocks, as a weight of their own. They are copied each time that they are asked for."""

    _own: tuple[StoredBlocks, Tensor]

    def __init__(self, of: StoredBlocks, rows: Tensor) -> None:
        for key, value in {"form": of.form, "order": None, "release": of.release, "_own": (of, rows)}.items():
            object.__setattr__(self, key, value)

    @property
    def raw(self) -> Tensor:
        """(o, bytes of a row) uint8."""
        of, rows = self._own
        return of.raw[rows]

    @property
    def shape(self) -> tuple[int, int]:
        """(o, K)."""
        of, rows = self._own
        return len(rows), of.shape[1]


class BlockLinear:
    """Weights (O, K) in the blocks of a GGUF file, in panels for the kernels, which have to be loaded.

    Args:
        stored: the weights.
        bias: (O,) bfloat16 or None.
        arena: memory for the panels; None takes ordinary memory.
    """

    def __init__(self, stored: StoredBlocks, bias: Tensor | None = None, arena: Arena | None = None) -> None:
        self._form, self._bias = stored.form, bias
        self._rows = stored.shape[0]
        raw = stored.raw  # once, because some weights are put into blocks when they are asked for
        shape = panels_shape(stored.form, *raw.shape)
        self._panels = torch.empty(shape, dtype=torch.uint8) if arena is None else arena.empty(shape, torch.uint8)
        self._take(stored, raw)
        self.step_bytes = self._panels.nbytes

    def _take(self, stored: StoredBlocks, raw: Tensor) -> None:
        """Fill the panels. Of the file only some megabytes are held in memory at once."""
        rows, row_bytes = raw.shape
        at_once = rows if stored.order is not None else max(1, _READ // (row_bytes * PANEL_ROWS)) * PANEL_ROWS
        for start in range(0, rows, at_once):
            panels = self._panels[start // PANEL_ROWS : -(-(start + at_once) // PANEL_ROWS)]
            pack(stored.form, raw[start : start + at_once], panels, stored.order)
            stored.release()

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply, in the dtype of `x`."""
        if takes_prompts(x, x.shape[1]):
            return prompt_product(self.native(), x)
        if len(x) == 1:  # as several rows are computed, see `multiplied`
            return self(x.expand(2, -1))[:1]
        out = x.new_empty(len(x), self._rows)
        panels = max(1, _TILE // (2 * PANEL_ROWS * x.shape[1]))
        for start in range(0, len(self._panels), panels):
            weights = weights_of(self._form, self._panels[start : start + panels], x.dtype)
            first = start * PANEL_ROWS
            rows = min(len(weights), self._rows - first)
            out[:, first : first + rows] = linear(x, weights[:rows])
        return out if self._bias is None else out.add_(self._bias.to(x.dtype))

    def dense(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """Return the weights as numbers; float32 has them exactly."""
        return weights_of(self._form, self._panels, dtype)[: self._rows]

    def bits(self) -> Tensor:
        """Return the panels."""
        return self._panels

    def native(self) -> NativeBlocks:
        """Return the panels for the kernels."""
        return NativeBlocks(self._form, self._panels, self._rows, self._bias)


class JoinedLinear:
    """Several products of the same input as one, their outputs side by side."""

    def __init__(self, parts: Sequence[Linear]) -> None:
        self._parts = tuple(parts)
        self.step_bytes = sum(part.step_bytes for part in parts)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        matrix = self._matrix
        if matrix is not None and takes_prompts(x, x.shape[1]):
            return prompt_product(matrix, x)
        return torch.cat([part(x) for part in self._parts], dim=1)

    def dense(self) -> Tensor:
        """Return the weights as numbers, one below the other."""
        return torch.cat([part.dense() for part in self._parts])

    def bits(self) -> Tensor:
        """Return what identifies the weights, as bytes."""
        return torch.cat([bits_of(part).reshape(-1).view(torch.uint8) for part in self._parts])

    def native(self) -> AnyMatrix | None:
        """Return all parts for the kernels, or None if one is in another form."""
        return self._matrix

    @cached_property
    def _matrix(self) -> NativeParts | None:
        parts = [part.native() for part in self._parts]
        found = tuple(part for part in parts if part is not None and not isinstance(part, NativeParts))
        return NativeParts(found) if len(found) == len(parts) else None


def bits_of(product: Linear) -> Tensor:
    """Return what identifies the weights of a product: blocks as they are stored, other weights as numbers."""
    return product.bits() if isinstance(product, BlockLinear | JoinedLinear) else product.dense()


class BlockTable(nn.Module):
    """An embedding table in the blocks of a file, of which a token's row is read when it is asked for."""

    def __init__(self, stored: StoredBlocks) -> None:
        super().__init__()
        self.stored = stored
        self.weight = nn.Parameter(torch.empty(0, stored.shape[1], dtype=torch.bfloat16), requires_grad=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return (T, E) bfloat16 for ids (T,)."""
        rows = rows_of(self.stored.form, self.stored.raw, token_ids.reshape(-1))
        return rows.view(*token_ids.shape, -1)

    def native(self) -> NativeTable:
        """Return the table for the kernels."""
        return NativeTable(self.stored.raw, self.stored.form)
