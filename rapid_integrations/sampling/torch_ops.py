"""The reference: every operation of `Ops` in torch, on whatever device the vectors are."""

from __future__ import annotations

from typing import Final, Unpack

import torch
from torch import Tensor

from rapid_integrations.sampling.augmented_target import augmented_target
from rapid_integrations.sampling.ops import LEAST_SUM, Ops, RowOps, Shift
from rapid_integrations.sampling.truncation import truncate


class TorchOps:
    """`Ops` in torch; see there for what each operation returns.

    Args:
        rows: computes whole rounds.
    """

    def __init__(self, rows: RowOps | None = None) -> None:
        self.rows = rows

    def softmax(self, logits: Tensor, temperature: float) -> Tensor:
        """Return softmax(logits / temperature)."""
        return torch.softmax(_divided(logits, temperature), dim=-1)

    def p_hat(self, z: Tensor, drafter_logits: Tensor, temperature: float, **shift: Unpack[Shift]) -> Tensor:
        """Return p_hat (V,); a drafter on another device than the target is heard, too."""
        logits, q = _divided(z, temperature), self.softmax(drafter_logits.to(z.device), temperature)
        return augmented_target(torch.softmax(logits, dim=-1), q, logits=logits, **shift)

    def best_of_p_hat(self, z: Tensor, drafter_logits: Tensor, **shift: Unpack[Shift]) -> int:
        """Return the best token of `p_hat` at temperature 1."""
        return self.best(self.p_hat(z, drafter_logits, 1.0, **shift))

    def truncate(self, probs: Tensor, *, top_k: int, top_p: float, min_p: float) -> Tensor:
        """Return `probs` (V,) truncated."""
        return truncate(probs, top_k=top_k, top_p=top_p, min_p=min_p)

    def residual(self, law: Tensor, factor: float, proposed: Tensor) -> tuple[float, Tensor]:
        """Return the sum of max(factor * law - proposed, 0), and that scaled to a sum of 1."""
        rest = (law * factor - proposed.to(law.device)).clamp(min=0.0)
        left = float(rest.sum())
        return left, rest * (1.0 / left) if left >= LEAST_SUM else rest

    def without(self, law: Tensor, token: int) -> Tensor:
        """Return the law (V,) given that the outcome is not `token`.

        If nothing else remains, a rejection of the token was an accident of rounding, and the law itself is returned.
        """
        if not law[token]:  # as in a greedy law: nothing to copy and add up
            return law
        rest = law.clone()
        rest[token] = 0.0
        left = float(rest.sum())
        return rest * (1.0 / left) if left >= LEAST_SUM else law

    def draw(self, probs: Tensor, share: float) -> int:
        """Return the index at which the running sum of `probs` (V,) exceeds this share of its total."""
        # In double precision: behind a running sum of 1, single precision has no room for improbable entries.
        running = probs.cpu().cumsum(-1, dtype=torch.float64)
        # Rounding can push the share up to the total. Then the last entry that adds to it is meant.
        last = torch.searchsorted(running, running[-1])
        return int(torch.searchsorted(running, share * running[-1], right=True).minimum(last))

    def best(self, values: Tensor) -> int:
        """Return the index of the largest entry (V,)."""
        return int(values.argmax())

    def point_mass(self, token: int, like: Tensor) -> Tensor:
        """Return (V,), 1 at `token` and 0 elsewhere."""
        point = torch.zeros_like(like)
        point[token] = 1.0
        return point


REFERENCE: Final[Ops] = TorchOps()
"""What computes where nothing else was chosen."""


def _divided(logits: Tensor, temperature: float) -> Tensor:
    """Return logits (V,) / temperature, up to a constant that softmax does not see."""
    if temperature == 1.0:
        return logits
    # With the best at 0, no temperature, however small, makes an infinity that softmax cannot take.
    return (logits - logits.amax(-1, keepdim=True)) / temperature
