"""Four-bit weights in the order in which the kernels multiply them.

A weight (O, K) is cut into panels of 16 rows, each row into groups of 32 columns with a scale and an offset:
weight = (level - 8) * scale + zero. A panel is one group after another, each 320 bytes: the levels of 16 x 32 weights,
16 scales and 16 offsets. In a vector of the processor a row is then a lane: nothing is summed across lanes, and scales
and offsets come as vectors, too. `interface.h` has the order of the levels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.library import loaded_library

GROUP = 32  # weights that share a scale and an offset; also the block of GGUF's 4-bit formats
PANEL_ROWS = 16
_LEVEL_BYTES = PANEL_ROWS * GROUP // 2
# Columns of a group as (quarter, byte, half of the byte, parity), the fastest last.
_COLUMNS = (4, 2, 2, 2)


def to_panels(levels: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return (O / 16, K / 32, 320) uint8.

    Args:
        levels: (O, K / 32, 32) uint8, 0 to 15.
        scale, zero: (O, K / 32) bfloat16.
    """
    rows, groups, _ = levels.shape
    panels = rows // PANEL_ROWS
    ordered = levels.view(panels, PANEL_ROWS, groups, *_COLUMNS).permute(0, 2, 3, 1, 6, 4, 5)
    packed = (ordered[..., 0] | ordered[..., 1] << 4).reshape(panels, groups, _LEVEL_BYTES)
    figures = [
        part.view(panels, PANEL_ROWS, groups).transpose(1, 2).contiguous().view(torch.uint8) for part in (scale, zero)
    ]
    return torch.cat([packed, *figures], dim=2)


def from_panels(panels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return levels (O, K / 32, 32) uint8, scale and zero (O, K / 32) bfloat16: what `to_panels` was given."""
    count, groups, _ = panels.shape
    figures = panels[..., _LEVEL_BYTES:].chunk(2, dim=2)
    packed = panels[..., :_LEVEL_BYTES].reshape(count, groups, _COLUMNS[0], PANEL_ROWS, _COLUMNS[3], _COLUMNS[1])
    halves = torch.stack([packed & 15, packed >> 4], dim=-1)  # (panel, group, quarter, row, parity, byte, half)
    levels = halves.permute(0, 3, 1, 2, 5, 6, 4).reshape(count * PANEL_ROWS, groups, GROUP)
    scale, zero = (
        part.contiguous().view(torch.bfloat16).transpose(1, 2).reshape(count * PANEL_ROWS, groups) for part in figures
    )
    return levels, scale, zero


def weights_of(panels: Tensor) -> Tensor:
    """Return the weights that the panels stand for, (O, K) bfloat16."""
    count, groups, _ = panels.shape
    library = loaded_library()
    if library is None or panels.device.type != "cpu":
        levels, scale, zero = from_panels(panels)
        return torch.addcmul(zero[..., None], levels.to(torch.bfloat16) - 8, scale[..., None]).flatten(1)
    panels = panels.contiguous()
    out = torch.empty(count * PANEL_ROWS, groups * GROUP, dtype=torch.bfloat16, device="cpu")
    library.rapid_unpack(panels.data_ptr(), *out.shape, torch.get_num_threads(), out.data_ptr())
    return out
