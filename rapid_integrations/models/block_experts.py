"""Matrices of experts that are kept in the blocks of a file, one for each expert.

Each expert has panels of its own, so a step reads only those of the experts that its rows take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.cache.arena import Arena
from rapid_integrations.models.block_linear import BlockLinear, JoinedLinear, StoredBlocks
from rapid_integrations.models.linear import Linear


@dataclass(frozen=True)
class StoredStack:
    """A matrix (O, K) for each of N experts, in blocks.

    Attributes:
        parts: what the rows of a matrix consist of, one below the other: gate and up, or one part. Each part has the
            matrices of all experts.
        given: from (N, O, K) to the form in which the model holds it; None: that is its form.
    """

    parts: tuple[Sequence[StoredBlocks], ...]
    given: Callable[[Tensor], Tensor] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, O, K)."""
        rows = sum(part[0].shape[0] for part in self.parts)
        return len(self.parts[0]), rows, self.parts[0][0].shape[1]

    @property
    def formats(self) -> str:
        """Names of the formats of its parts."""
        return " ".join(part[0].form.name for part in self.parts)

    def first(self, experts: int) -> StoredStack:
        """Return the first experts as a stack of their own."""
        return StoredStack(tuple(part[:experts] for part in self.parts), self.given)

    def numbers(self, *, exact: bool) -> Tensor:
        """Return the weights in the form of the model.

        Args:
            exact: float32, computed by the gguf package. Otherwise bfloat16, computed by the kernels.
        """
        found = []
        for matrices in zip(*self.parts, strict=True):
            found.append(torch.cat([each.dense() if exact else each.rounded() for each in matrices]))
            for each in matrices:
                each.release()
        whole = torch.stack(found)
        return whole if self.given is None else self.given(whole).contiguous()

    def products(self, biases: Tensor | None, arena: Arena | None) -> list[Linear]:
        """Return a product for each expert.

        Args:
            biases: (N, O), or None.
            arena: memory for the panels; None takes ordinary memory.
        """
        rows = [part[0].shape[0] for part in self.parts]
        found: list[Linear] = []
        for index, matrices in enumerate(zip(*self.parts, strict=True)):
            own = (
                [None] * len(rows)
                if biases is None
                else [each.contiguous() for each in torch.split(biases[index], rows)]
            )
            joined = [BlockLinear(matrix, bias, arena) for matrix, bias in zip(matrices, own, strict=True)]
            found.append(joined[0] if len(joined) == 1 else JoinedLinear(joined))
        return found
