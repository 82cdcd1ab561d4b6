"""Hidden states that somebody wants from passes, beside their logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

LAST = -1
"""Stands for what a model's head reads: the last layer's output behind the final norm."""


@dataclass(frozen=True, eq=False)
class WantedStates:
    """The hidden states of a text's rows that a trained head was made for.

    Attributes:
        levels: which ones: number i >= 0 is what layer i reads (transformers' `hidden_states[i]`), and `LAST` what the
            model's head reads.
        first: the position from which on they are wanted. A pass that ends before it gives none.
        take: is called by every pass, before its logits are returned, with the position of its first row, its tokens,
            their parents (None is a chain), and the states (T, levels * E) side by side. A pass that fails is
            repeated, and gives the same rows again.
    """

    levels: tuple[int, ...]
    first: int
    take: Callable[[int, Tensor, tuple[int, ...] | None, Tensor], None]
