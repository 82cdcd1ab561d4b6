"""Whether what a model computed are numbers."""

from __future__ import annotations

import math

from torch import Tensor


def numbers(logits: Tensor) -> Tensor:
    """Return (keep, V) logits as float32.

    Raises:
        FloatingPointError: NaN among them.
    """
    logits = logits.float()
    # Any NaN makes the sum one. PyTorch would wake all threads for it on a processor, NumPy does not.
    whole = float(logits.numpy().sum()) if logits.device.type == "cpu" else float(logits.sum())
    if math.isnan(whole):
        raise FloatingPointError("NaN among the logits")
    return logits
