"""Forms in which families hold the matrices of experts, and those that the kernels read: (N, O, K), gates first.

They have names, because a description may be kept in a file (`kept_model.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor


def transposed(stack: Tensor) -> Tensor:
    """Return (N, O, K) of (N, K, O), or the other way round."""
    return stack.transpose(1, 2)


def halves(rows: Tensor) -> Tensor:
    """Put what belongs to the gate, every second row, before the rest: (N, O, ...)."""
    return torch.cat([rows[:, ::2], rows[:, 1::2]], dim=1)


def gate_first(stack: Tensor) -> Tensor:
    """Return (N, O, K), gates first, of (N, K, O), where every second column belongs to the gate."""
    return halves(stack.transpose(1, 2))


def interleaved(stack: Tensor) -> Tensor:
    """Undo `gate_first`."""
    gate, up = stack.chunk(2, dim=1)
    return torch.stack([gate, up], dim=2).flatten(1, 2).transpose(1, 2)


FORMS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    each.__name__: each for each in (transposed, halves, gate_first, interleaved)
}
"""All of them by name."""
