"""Two operations on vectors as wide as a vocabulary, on one thread where PyTorch would wake all of them.

On a processor PyTorch spreads these over its threads from some ten thousand elements on. Waking them costs as much as
the work on an idle machine (0.1 ms), and milliseconds on a busy one; a draft asks for several a token.
"""

from __future__ import annotations

import torch
from torch import Tensor


def places(condition: Tensor) -> Tensor:
    """Return where (V,) bool is True, (M,)."""
    if condition.device.type != "cpu":
        return condition.nonzero()[:, 0]
    return torch.from_numpy(condition.numpy().nonzero()[0])


def point_mass(token: int, like: Tensor) -> Tensor:
    """Return (V,), 1 at `token` and 0 elsewhere."""
    if like.device.type != "cpu":
        point = torch.zeros_like(like)
        point[token] = 1.0
        return point
    values = like.numpy().copy()
    values.fill(0.0)
    values[token] = 1.0
    return torch.from_numpy(values)
