"""Checks a model's logits for NaN."""

from __future__ import annotations

import math

from torch import Tensor


def numbers(logits: Tensor) -> Tensor:
    """Return (keep, V) logits as float32.

    Raises:
        FloatingPointError: a logit is NaN.
    """
    logits = logits.float()
    # Any NaN makes the sum NaN. On a CPU, PyTorch would wake all its threads for this sum, NumPy does not.
    whole = float(logits.numpy().sum()) if logits.device.type == "cpu" else float(logits.sum())
    if math.isnan(whole):
        raise FloatingPointError("a logit is NaN")
    return logits
