"""Norms of rows, computed by PyTorch's operators or by the kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from rapid_integrations.kernels.cpu import prefill
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


def normed_rows(norm: Norm, x: Tensor, kernels: bool) -> Tensor:
    """Return rows, (T, E), as a norm leaves them."""
    return prefill.add_and_norm(x, None, norm) if kernels else normalised(norm, x)
