"""Weights of eight and four bits in the order in which the kernels multiply them.

A weight (O, K) is cut into panels of 16 rows, and each panel into groups of 32 columns, which lie one behind the
other. In a vector of the processor a row is then a lane, and nothing is summed across lanes. `interface.h` has the
order within a group.

- Eight bits: weight = (level - 128) * scale with one scale for each row. A group has 512 bytes of levels. A last panel
  that has fewer rows is filled up.
- Four bits: weight = (level - 8) * scale + zero with a scale and a zero for each group of each row. A group has 320
  bytes: the levels, 16 scales and 16 zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rapid_integrations.kernels.cpu.library import loaded_library

GROUP = 32  # weights that share a scale and a zero; also the block of GGUF's 4-bit formats
PANEL_ROWS = 16
INT8, INT4 = 1, 2  # as in interface.h
_OFFSET = 128  # what an eight-bit level is stored above its value
_INT8_BYTES = PANEL_ROWS * GROUP
_INT4_BYTES = _INT8_BYTES // 2  # of levels
_TOGETHER = 4  # columns of a row whose levels lie together


def kind_of(panels: Tensor) -> int:
    """Return INT8 or INT4."""
    return INT8 if panels.shape[2] == _INT8_BYTES else INT4


def int8_panels(levels: Tensor) -> Tensor:
    """Return (O / 16 rounded up, K / 32, 512) uint8 for levels (O, K) int8."""
    rows, columns = levels.shape
    stored = pad(levels.view(torch.uint8) ^ _OFFSET, (0, 0, 0, -rows % PANEL_ROWS), value=_OFFSET)
    ordered = stored.view(-1, PANEL_ROWS, columns // _TOGETHER, _TOGETHER).transpose(1, 2)
    return ordered.reshape(-1, columns // GROUP, _INT8_BYTES)


def int4_panels(levels: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return (O / 16, K / 32, 320) uint8.

    Args:
        levels: (O, K / 32, 32) uint8, 0 to 15.
        scale, zero: (O, K / 32) bfloat16.
    """
    rows, groups, _ = levels.shape
    panels = rows // PANEL_ROWS
    halves = levels.view(panels, PANEL_ROWS, groups, -1, 2, _TOGETHER).permute(4, 0, 2, 3, 1, 5)
    packed = (halves[0] | halves[1] << 4).reshape(panels, groups, _INT4_BYTES)
    figures = [
        part.view(panels, PANEL_ROWS, groups).transpose(1, 2).contiguous().view(torch.uint8) for part in (scale, zero)
    ]
    return torch.cat([packed, *figures], dim=2)


def weights_of(panels: Tensor) -> Tensor:
    """Return the weights that four-bit panels stand for, or the levels of eight-bit panels: (16 panels, K) bfloat16."""
    count, groups, _ = panels.shape
    library = loaded_library()
    if library is None or panels.device.type != "cpu":
        return _levels_of(panels) if kind_of(panels) == INT8 else _scaled(panels)
    panels = panels.contiguous()
    out = torch.empty(count * PANEL_ROWS, groups * GROUP, dtype=torch.bfloat16, device="cpu")
    library.rapid_unpack(kind_of(panels), panels.data_ptr(), *out.shape, torch.get_num_threads(), out.data_ptr())
    return out


def _levels_of(panels: Tensor) -> Tensor:
    count, groups, _ = panels.shape
    ordered = panels.reshape(count, groups * GROUP // _TOGETHER, PANEL_ROWS, _TOGETHER).transpose(1, 2)
    return ordered.reshape(count * PANEL_ROWS, groups * GROUP).to(torch.bfloat16) - _OFFSET


def _scaled(panels: Tensor) -> Tensor:
    count, groups, _ = panels.shape
    packed = panels[..., :_INT4_BYTES].reshape(count, groups, -1, PANEL_ROWS, _TOGETHER)
    halves = torch.stack([packed & 15, packed >> 4], dim=4)  # (panel, group, eight columns, row, half, column)
    levels = halves.permute(0, 3, 1, 2, 4, 5).reshape(count * PANEL_ROWS, groups, GROUP)
    scale, zero = (
        part.contiguous().view(torch.bfloat16).transpose(1, 2).reshape(count * PANEL_ROWS, groups)
        for part in panels[..., _INT4_BYTES:].chunk(2, dim=2)
    )
    return torch.addcmul(zero[..., None], levels.to(torch.bfloat16) - 8, scale[..., None]).flatten(1)
