"""The hidden states that a pass hands to trained heads, besides its logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.cache.hidden_states import LAST


class GivenStates:
    """Collects the hidden states that readers want of a pass.

    Args:
        rows: of all readers.
    """

    def __init__(self, rows: Sequence[Rows]) -> None:
        self._rows = tuple(rows)
        self._levels = {level for each in rows if (asked := each.wanted_states) for level in asked.levels}
        self._states: dict[int, Tensor] = {}  # of each level (T of all, E)

    def add(self, level: int, x: Tensor) -> None:
        """Keep what layer `level` reads, if somebody wants it."""
        if level in self._levels:
            self._states[level] = x.clone()  # kernels add to it in place

    def hand_over(self, last: Sequence[Tensor] | None) -> None:
        """Give each reader what it wants; `last` has the states behind the final norm."""
        if not self._levels:
            return
        counts = [each.count for each in self._rows]
        split = {level: torch.split(states, counts) for level, states in self._states.items()}
        for number, each in enumerate(self._rows):
            if (asked := each.wanted_states) is not None:
                held = [split[level][number] if level != LAST else (last or ())[number] for level in asked.levels]
                each.give(_side_by_side(held))


def wants_last(rows: Rows) -> bool:
    """Whether the states behind the final norm are wanted of these rows."""
    wanted = rows.wanted_states
    return wanted is not None and LAST in wanted.levels


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
