"""Small floats of FP8 and MXFP4 checkpoints as float32."""

from __future__ import annotations

import torch
from torch import Tensor

_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
FP4_VALUES = (*_FP4, *(-each for each in _FP4))
"""Values of the sixteen numbers of four bits (e2m1)."""


def fp8_weights(weight: Tensor, scale: Tensor, block: tuple[int, int] | None) -> Tensor:
    """Return weight * scale, float32.

    Args:
        weight: (..., O, K) float8_e4m3fn.
        scale: one number, (..., O, 1), (O,) or one for each block of rows and columns; the last may be cut off.
        block: rows and columns of a block; None: the shapes say it.

    Raises:
        ValueError: the shapes do not belong together.
    """
    values, factor = weight.float(), scale.float()
    if factor.numel() == 1:
        return values * factor.reshape(())
    rows, columns = values.shape[-2:]
    if factor.shape == (rows,):
        factor = factor[:, None]
    if factor.ndim == values.ndim and factor.shape[:-2] == values.shape[:-2]:
        counts = tuple(factor.shape[-2:])
        if block is None or counts in ((rows, 1), (1, 1)):
            block = -(-rows // counts[0]), -(-columns // counts[1])
        if counts == (-(-rows // block[0]), -(-columns // block[1])):
            spread = factor.repeat_interleave(block[0], -2)[..., :rows, :].repeat_interleave(block[1], -1)
            return values * spread[..., :columns]
    raise ValueError(
        f"its weights have the shape {tuple(weight.shape)}, which its scales {tuple(scale.shape)} do not fit"
    )


def mxfp4_weights(blocks: Tensor, scales: Tensor) -> Tensor:
    """Return (N, K, O) float32, as transformers' GPT-OSS holds its experts.

    Args:
        blocks: (N, O, K / 32, 16) uint8, two numbers a byte, the first in its low half.
        scales: (N, O, K / 32) uint8, powers of two, 127 above their value.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if blocks.shape[:-1] != scales.shape or blocks.ndim != 4:
        raise ValueError(f"its blocks have the shape {tuple(blocks.shape)}, its scales {tuple(scales.shape)}")
    values = torch.tensor(FP4_VALUES)
    pairs = torch.stack([values[(blocks & 15).long()], values[(blocks >> 4).long()]], dim=-1).flatten(3)
    numbers = torch.ldexp(pairs, (scales.int() - 127)[..., None])
    return numbers.flatten(2).transpose(1, 2).contiguous()
