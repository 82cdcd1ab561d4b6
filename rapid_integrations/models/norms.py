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


def add_and_norm(
    x: Tensor, more: Tensor | None, factor: float, norm: Norm | None, kernels: bool
) -> tuple[Tensor, Tensor]:
    """Return x with factor * `more` added (x itself may be changed), and the normalised sum."""
    if kernels:
        return x, prefill.add_and_norm(x, more, norm, factor)
    if more is not None:
        x = x + (more if factor == 1 else more * factor)
    return x, normalised(norm, x)


def normalised_heads(qk: Tensor, heads: int, norms: tuple[Norm | None, Norm | None]) -> Tensor:
    """Return queries and keys, (T, H + H_kv, D), as their norms leave them, each head or all of them together."""
    if norms[0] is None or norms[1] is None:
        return qk
    parts = [qk[:, :heads], qk[:, heads:]]
    for index, norm in enumerate(norms):
        assert norm is not None
        part = parts[index]
        whole = norm.scope == "all heads"
        parts[index] = normalised(norm, part.flatten(1)).view(part.shape) if whole else normalised(norm, part)
    return torch.cat(parts, dim=1)
