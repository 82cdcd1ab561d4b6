"""What a decoder computes of positions: angles, factors on queries, and rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """The angles of rotary embeddings.

    Attributes:
        inverse_frequencies: (pairs,) float32, the angle of each pair of numbers at position 1.
        scaling: factor on cosines and sines.
        long: the same as `inverse_frequencies`, for texts whose capacity exceeds `switch` tokens; None: there is none.
    """

    inverse_frequencies: Tensor
    scaling: float = 1.0
    long: Tensor | None = None
    switch: int = 0


@dataclass(frozen=True)
class Growth:
    """Factors on queries that grow with their position: 1 + scale * log(1 + floor((position + ahead) / every))."""

    every: int
    scale: float
    ahead: int = 1


@dataclass(frozen=True)
class Positions:
    """Learned positions, which are added to embedded rows.

    Attributes:
        embedding: the module that holds the table (positions, E).
        first: the row of position 0.
    """

    embedding: Any
    first: int = 0

    @property
    def table(self) -> Tensor:
        """The rows from position 0 on."""
        rows: Tensor = self.embedding.weight.data[self.first :]
        return rows
