"""The operations on vectors as wide as a vocabulary, apart from who computes them.

The mathematics of this folder asks for them by name. One implementation is chosen for a whole request: `TorchOps` here,
which is the reference and runs on any device, or kernels that are made for one kind of device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypedDict, Unpack

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rapid_integrations.config import Eta

LEAST_SUM: Final = torch.finfo(torch.float32).tiny
"""What has a smaller sum is not scaled to a sum of 1: 1 / sum may overflow, and denormal numbers have few digits."""


class Shift(TypedDict):
    """How p is shifted to p_hat: keyword arguments of `augmented_target`, which explains them."""

    eta: Eta
    relevance: float
    trust: float
    tail_rule: Literal["mask", "restore"]
    tail_alpha: float


class RowOps(Protocol):
    """What is computed for all positions of a round at once, on the device where the logits lie.

    Nothing here asks for a number, so nothing makes the host wait for the device.
    """

    def p_hat(self, z: Tensor, drafter_logits: Tensor, temperature: float, **shift: Unpack[Shift]) -> Tensor:
        """Return p_hat (R, V) of both models' logits (R, V) at this temperature, untruncated."""
        ...

    def draw(self, probs: Tensor, share: Tensor) -> Tensor:
        """Return what `Ops.draw` does with `probs` (V,) and a share (1,) float64, as an int64 without dimensions."""
        ...

    def verify(
        self, laws: Tensor, draft: Tensor, proposed: Tensor | None, uniforms: Tensor, length: Tensor | None = None
    ) -> Tensor:
        """Return what becomes of a chain of K draft tokens: what `verify` and the draw behind a whole chain give.

        Args:
            laws: (K + 1, V) float32, the law at each position and behind the last one.
            draft: (K,) int64; K may be 0.
            proposed: (K, V) float32, what each token was drawn from; None for point masses.
            uniforms: (at least K + 2,) float64 in [0, 1), in the order in which they are used.
            length: int64 without dimensions: how many tokens count; None: all.

        Returns:
            (3,) int64: how many tokens stand, the token behind them, and how many uniform numbers were used.
        """
        ...


class Ops(Protocol):
    """What is computed at a position; `TorchOps` defines each result, and the others agree with it up to rounding.

    Vectors are (V,) and stay as they are, except in `truncate`.

    Attributes:
        rows: computes whole rounds where the logits lie; None: the host takes one position after another.
    """

    rows: RowOps | None

    def softmax(self, logits: Tensor, temperature: float) -> Tensor:
        """Return softmax(logits / temperature); the temperature is at least 1e-30."""
        ...

    def p_hat(self, z: Tensor, drafter_logits: Tensor, temperature: float, **shift: Unpack[Shift]) -> Tensor:
        """Return p_hat of both models' logits at this temperature, untruncated."""
        ...

    def best_of_p_hat(self, z: Tensor, drafter_logits: Tensor, **shift: Unpack[Shift]) -> int:
        """Return the best token of `p_hat` at temperature 1."""
        ...

    def truncate(self, probs: Tensor, *, top_k: int, top_p: float, min_p: float) -> Tensor:
        """Return `probs` without its improbable tokens, renormalised; it may be overwritten."""
        ...

    def residual(self, law: Tensor, factor: float, proposed: Tensor) -> tuple[float, Tensor]:
        """Return the sum of max(factor * law - proposed, 0), and that scaled to a sum of 1.

        If the sum is less than `LEAST_SUM`, the vector is left as it is; a draw takes any scale.
        """
        ...

    def without(self, law: Tensor, token: int) -> Tensor:
        """Return the law given that the outcome is not `token`; the law itself if nothing else remains."""
        ...

    def draw(self, probs: Tensor, share: float) -> int:
        """Return the index at which the running sum of `probs` exceeds this share of its total.

        A zero entry is never returned.
        """
        ...

    def best(self, values: Tensor) -> int:
        """Return the index of the largest entry; of several, the first."""
        ...

    def point_mass(self, token: int, like: Tensor) -> Tensor:
        """Return a vector of the kind of `like` that is 1 at `token` and 0 elsewhere."""
        ...
