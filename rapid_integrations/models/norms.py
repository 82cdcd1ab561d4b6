"""Norms of rows, computed by PyTorch's operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from rapid_integrations.kernels.layers import Norm


def normalised(norm: Norm | None, x: Tensor) -> Tensor:
    """Return x, (..., E), as a norm leaves it."""
    if norm is None:
        return x
    if norm.weight is not None and norm.bias is None and not norm.centred and not norm.offset and norm.weight.ndim == 1:
        return rms_norm(x, norm.weight.shape, norm.weight, norm.eps)
    wide = x.float()
    if norm.centred:
        wide = wide - wide.mean(dim=-1, keepdim=True)
    wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + norm.eps)
    if norm.weight is not None:
        wide = wide * (norm.weight.float() + norm.offset)
    return (wide if norm.bias is None else wide + norm.bias.float()).to(x.dtype)
