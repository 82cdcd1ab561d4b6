"""q of several drafters: the weighted mean of their distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def mixed_logits(logits: Sequence[Tensor], weights: Sequence[float], temperature: float) -> Tensor:
    """Return logits d (V,) for which softmax(d / T) is the weighted mean of softmax(d_i / T).

    Args:
        logits: (V,) of each drafter, float32.
        weights: of each, positive; they sum to 1.
        temperature: T > 0.
    """
    logs = [
        torch.log_softmax(each / temperature, dim=-1) + math.log(weight)
        for each, weight in zip(logits, weights, strict=True)
    ]
    return temperature * torch.logsumexp(torch.stack(logs), dim=0)
