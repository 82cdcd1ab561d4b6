"""Distributions over a vocabulary in one call each; see distributions.cpp."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.library import loaded_library

Eta: TypeAlias = float | Literal["auto", "nearest"]

_CHOSEN = -1.0  # the kernels' eta where they choose it at each position


def served(first: Tensor, *others: Tensor) -> bool:
    """Whether the kernels are there for these vectors: of one length, in float32, on the processor."""
    # Asked between two steps, which leave nothing in the caches: `len(x)` and `x.device.type` take 20 and 10 us there,
    # what is asked for here 2.
    if loaded_library() is None or not (size := first.numel()):
        return False
    for each in (first, *others):
        if each.dim() != 1 or each.numel() != size or each.dtype != torch.float32 or not each.is_cpu:
            return False
    return True


def softmax(logits: Tensor, factor: float) -> Tensor:
    """Return softmax(logits * factor), (V,)."""
    library, logits = loaded_library(), logits.contiguous()
    assert library is not None
    out = torch.empty_like(logits)
    library.rapid_softmax(logits.data_ptr(), logits.numel(), factor, out.data_ptr())
    return out


def draw(probs: Tensor, share: float) -> int:
    """Return the index at which the running sum of (V,), not negative, exceeds this share of the whole."""
    library, probs = loaded_library(), probs.contiguous()
    assert library is not None
    return int(library.rapid_draw(probs.data_ptr(), probs.numel(), share))


def truncate_(probs: Tensor, *, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Do what `sampling.truncate` does to contiguous (V,), in place, and return it."""
    library = loaded_library()
    assert library is not None and probs.is_contiguous()
    if library.rapid_truncate(probs.data_ptr(), probs.numel(), top_k, top_p, min_p):
        raise MemoryError("truncating a distribution found no memory")
    return probs


def residual(law: Tensor, factor: float, proposed: Tensor) -> tuple[float, Tensor]:
    """Return the sum of max(law * factor - proposed, 0), and that scaled to a sum of 1 where it is not 0; all (V,)."""
    library, law, proposed = loaded_library(), law.contiguous(), proposed.contiguous()
    assert library is not None
    out = torch.empty_like(law)
    left = library.rapid_residual(law.data_ptr(), factor, proposed.data_ptr(), law.numel(), out.data_ptr())
    return left, out


def p_hat(
    z: Tensor,
    drafter_logits: Tensor,
    *,
    factor: float,
    eta: Eta,
    relevance: float,
    trust: float,
    tail_alpha: float,
) -> Tensor:
    """Return p_hat (V,) with the tail rule "mask".

    Args:
        z, drafter_logits: (V,).
        factor: that both are multiplied with, 1 / T.
        eta, relevance, trust, tail_alpha: see `sampling.augmented_target`.
    """
    return _p_hat(z, drafter_logits, factor, eta, relevance, trust, tail_alpha, greedy=False)[1]


def best_of_p_hat(
    z: Tensor, drafter_logits: Tensor, *, eta: Eta, relevance: float, trust: float, tail_alpha: float
) -> int:
    """Return the best token of `p_hat` at T = 1, without forming it."""
    return _p_hat(z, drafter_logits, 1.0, eta, relevance, trust, tail_alpha, greedy=True)[0]


def _p_hat(
    z: Tensor,
    drafter_logits: Tensor,
    factor: float,
    eta: Eta,
    relevance: float,
    trust: float,
    tail_alpha: float,
    *,
    greedy: bool,
) -> tuple[int, Tensor]:
    library, z, drafter_logits = loaded_library(), z.contiguous(), drafter_logits.contiguous()
    assert library is not None
    out, scratch = torch.empty_like(z), torch.empty_like(z)
    token = library.rapid_p_hat(
        z.data_ptr(),
        drafter_logits.data_ptr(),
        z.numel(),
        factor,
        _CHOSEN if isinstance(eta, str) else eta,
        relevance,
        1.0 if eta == "nearest" else trust,
        tail_alpha,
        greedy,
        out.data_ptr(),
        scratch.data_ptr(),
    )
    if token == -2:
        raise MemoryError("forming a distribution found no memory")
    return token, out
