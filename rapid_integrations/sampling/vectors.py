"""Operations on vectors as wide as a vocabulary, on one thread where PyTorch would wake all of them.

On a processor PyTorch spreads these over its threads from some thirty thousand elements on. Waking them costs as much
as the work on an idle machine (0.1 ms), and milliseconds on a busy one; a draft asks for several a token. NumPy works
alone.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Numbers: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.floating[Any]]]"


def best(values: Tensor) -> int:
    """Return where (V,) is largest; the first place of several."""
    return int(values.argmax()) if _elsewhere(values) else int(values.numpy().argmax())


def total(values: Tensor) -> float:
    """Return the sum of (V,), or of several such rows."""
    return float(values.sum()) if _elsewhere(values) else float(values.numpy().sum())


def surplus(values: Tensor, less: Tensor) -> Tensor:
    """Return what one (V,) has more than another, nowhere below 0."""
    if _elsewhere(values):
        return (values - less).clamp(min=0.0)
    difference = values.numpy() - less.numpy()
    return torch.from_numpy(np.maximum(difference, 0.0, out=difference))


def scaled(values: Tensor, factor: float) -> Tensor:
    """Return (V,) times a number."""
    return (
        values * factor if _elsewhere(values) else torch.from_numpy(values.numpy() * values.numpy().dtype.type(factor))
    )


def point_mass(token: int, like: Tensor) -> Tensor:
    """Return (V,), 1 at `token` and 0 elsewhere."""
    point = torch.zeros_like(like) if _elsewhere(like) else torch.from_numpy(np.zeros(len(like), like.numpy().dtype))
    point[token] = 1.0
    return point


def _elsewhere(values: Tensor) -> bool:
    return values.device.type != "cpu"
