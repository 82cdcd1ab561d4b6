"""Checks a model's logits for NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from rapid_integrations.errors import NotANumberError


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


@contextmanager
def nan_taught(name: str) -> Iterator[None]:
    """Turn the FloatingPointError of `numbers` into an error that names the model.

    Raises:
        NotANumberError: a logit is NaN.
    """
    try:
        yield
    except FloatingPointError:
        raise NotANumberError(
            f"{name} computed logits that are no numbers (NaN): its weights are damaged, or its dtype is too "
            "narrow for what it computes; try dtype='bfloat16' or 'float32'"
        ) from None
