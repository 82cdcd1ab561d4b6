"""Integer levels in the blocks of GGUF formats, which the kernels compute with. No number is rounded.

A scale of a group is repeated for each 32 columns of it. Levels of four bits with zero points go into five bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.kernels.cpu.blocks import BlockFormat
from rapid_integrations.kernels.cpu.panels import GROUP
from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.packed.levels import Levels


class RepackedBlocks(StoredBlocks):
    """A weight that is put into blocks each time that it is asked for, so that it is not held twice.

    Args:
        name: of the weight, for messages.
        form: of the blocks.
        shape: (O, K).
        read: returns its levels.
    """

    _own: tuple[str, tuple[int, int], Callable[[], Levels]]

    def __init__(self, name: str, form: BlockFormat, shape: tuple[int, int], read: Callable[[], Levels]) -> None:
        for key, value in {"form": form, "order": None, "release": lambda: None}.items():
            object.__setattr__(self, key, value)
        object.__setattr__(self, "_own", (name, shape, read))

    @property
    def raw(self) -> Tensor:
        """(O, bytes of a row) uint8."""
        name, _, read = self._own
        return block_rows(name, read(), self.form)

    @property
    def shape(self) -> tuple[int, int]:
        """(O, K)."""
        return self._own[1]

    def dense(self) -> Tensor:
        """Return the weights, (O, K) float32."""
        return self._own[2]().dense()


def held_in_half(scale: Tensor) -> bool:
    """Return whether float16 has every one of these scales exactly."""
    return scale.dtype == torch.float16 or torch.equal(scale.half().to(scale.dtype), scale)


def block_rows(name: str, levels: Levels, form: BlockFormat) -> Tensor:
    """Return (O, bytes of a row) uint8 of a weight (Q4_0, Q5_0 or Q8_0).

    Raises:
        ModelLoadError: a level is outside the format, though the configuration says otherwise.
    """
    rows, columns = levels.numbers.shape
    blocks = columns // GROUP
    lowest, highest = -form.offset, 2**form.bits - 1 - form.offset
    least, most = (int(each) for each in levels.numbers.aminmax())
    if levels.group_of is not None or least < lowest or most > highest:
        raise ModelLoadError(
            f"{name} could not be loaded: its levels go from {least} to {most}, and its configuration leaves room for "
            f"{lowest} to {highest} in groups side by side. Its zero points or groups are others than the "
            "configuration says: correct sym and desc_act there"
        )
    scale = levels.scale.half().repeat_interleave(blocks // levels.scale.shape[1], dim=1)
    parts = [scale.contiguous().view(torch.uint8).view(rows, blocks, 2)]
    numbers = levels.numbers.view(rows, blocks, GROUP)
    if form.bits == 8:
        parts.append(numbers.to(torch.int8).view(torch.uint8))
    else:
        stored = (numbers + form.offset).to(torch.uint8)
        if form.bits == 5:
            fifth = (stored >> 4).view(rows, blocks, 4, 8) << torch.arange(8, dtype=torch.uint8)
            parts.append(fifth.sum(dim=-1, dtype=torch.uint8))
            stored = stored & 15
        parts.append(stored[..., : GROUP // 2] | stored[..., GROUP // 2 :] << 4)
    return torch.cat(parts, dim=2).flatten(1)
