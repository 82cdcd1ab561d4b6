"""What a request's output may look like, as the set of tokens that may come next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Constraint(Protocol):
    """Says which tokens may follow; one per request, told of every committed token.

    A draft is tried without being committed: `allowed` looks behind it, and forgets it.
    """

    def allowed(self, draft: Sequence[int] = ()) -> Tensor:
        """Return which tokens may follow the committed output and then `draft`.

        Args:
            draft: tokens each of which is allowed after those before it.

        Returns:
            (V,) bool, at least one of them True.
        """
        ...

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the output and forget every draft."""
        ...


def mask(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Return `logits` (V,) with -inf for each token that is not allowed; None allows all."""
    return logits if allowed is None else logits.masked_fill(~allowed.to(logits.device), -torch.inf)


def allowed_prefix(constraint: Constraint, token_ids: Sequence[int]) -> int:
    """Return how many of the first of `token_ids` the constraint allows.

    Only a draft that was not drawn (point masses) may be cut there: to discard a drawn token biases the output.
    """
    for position, token in enumerate(token_ids):
        if not constraint.allowed(token_ids[:position])[token]:
            return position
    return len(token_ids)
