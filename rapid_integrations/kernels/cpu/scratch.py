"""Space for what decode steps compute on the way."""

from __future__ import annotations

import torch
from torch import Tensor

_KEPT = 2**23  # floats, 32 MiB; a step that needs more reads gigabytes, beside which asking for memory costs nothing


class Scratch:
    """Keeps the space of a model's last step for its next one; a step has it for itself.

    Several threads may ask at the same time. Each has space of its own then, of which one is kept.
    """

    def __init__(self) -> None:
        self._idle: list[Tensor] = []

    def take(self, floats: int) -> Tensor:
        """Return at least so many floats, float32, whose values are of no use.

        Raises:
            MemoryError: there are not so many.
        """
        try:
            space = self._idle.pop()
        except IndexError:  # asked and taken in one operation, which other threads cannot split
            pass
        else:
            if space.numel() >= floats:
                return space
            del space  # before more is asked for
        try:
            return torch.empty(floats, dtype=torch.float32, device="cpu")
        except RuntimeError as error:
            raise MemoryError(f"a decode step found no memory for what it computes on the way: {error}") from None

    def give_back(self, space: Tensor) -> None:
        """Keep what `take` returned for the next step."""
        if space.numel() <= _KEPT:
            self._idle[:] = [space]
