"""Checks a model's logits for NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from rapid_integrations.errors import NotANumberError


def numbers(logits: Tensor, *, check: bool = True) -> Tensor:
    """Return (keep, V) logits as float32.

    Args:
        logits: of a model.
        check: look for NaN, for which the host waits for the device.

    Raises:
        FloatingPointError: a logit is NaN.
    """
    logits = logits.float()
    if not check:
        return logits
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
        raise NotANumberError.of_model(name) from None
