"""The law of a request: from the two models' logits at a position to the distribution that the output follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rapid_integrations.sampling.augmented_target import augmented_target
from rapid_integrations.sampling.processing import truncate

_LEAST_TEMPERATURE = 1e-30  # float32 divides by this without flushing it to 0


@dataclass(frozen=True)
class Law:
    """How a distribution is formed at one position, always in this order: softmax, shift, tail rule, truncation.

    Attributes:
        kind: "target" is p; "augmented" is p_hat; "paper" accepts against p_hat with the published residual and bonus.
        temperature: 0 is greedy: a point mass on the argmax of the law formed at T = 1. (At T -> 0 the shift
            eta * T * (q - p) would vanish from the logits, and with it everything that the retrieval added.)
        eta, tail_rule, tail_alpha: see `augmented_target`.
        top_k, top_p, min_p: see `truncate`.
    """

    kind: Literal["target", "augmented", "paper"]
    temperature: float = 0.0
    eta: float = 10.0
    tail_rule: Literal["mask", "restore"] = "mask"
    tail_alpha: float = 0.1
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def greedy(self) -> bool:
        """Whether the law is a point mass."""
        return self.temperature == 0.0

    @property
    def needs_drafter(self) -> bool:
        """Whether q is part of the law."""
        return self.kind != "target"

    def softmax(self, logits: Tensor) -> Tensor:
        """Return softmax(logits / T), untruncated; T = 1 when greedy."""
        return torch.softmax(self._scaled(logits), dim=-1)

    def _scaled(self, logits: Tensor) -> Tensor:
        if self.greedy:
            return logits
        # With the best at 0, no temperature, however small, makes an infinity that softmax cannot take.
        return (logits - logits.amax(-1, keepdim=True)) / max(self.temperature, _LEAST_TEMPERATURE)

    def form(self, z: Tensor, drafter_logits: Tensor | None) -> Tensor:
        """Return the law at one position.

        Args:
            z: (V,) target logits after penalties, float32.
            drafter_logits: (V,) the drafter's, after the same penalties; None for the kind "target".

        Returns:
            (V,): p or p_hat, truncated; a point mass when greedy.
        """
        if drafter_logits is None:
            return self._point(z) if self.greedy else self._truncate(self.softmax(z))
        p_hat = augmented_target(
            self.softmax(z),
            self.softmax(drafter_logits.to(z.device)),
            eta=self.eta,
            tail_rule=self.tail_rule,
            tail_alpha=self.tail_alpha,
            log_p=torch.log_softmax(self._scaled(z), dim=-1),
        )
        return self._point(p_hat) if self.greedy else self._truncate(p_hat)

    def propose(self, drafter_logits: Tensor) -> Tensor | None:
        """Return what the drafter draws a token from: q, truncated as the law is; None for a point mass on its best."""
        return None if self.greedy else self._truncate(self.softmax(drafter_logits))

    def _truncate(self, probs: Tensor) -> Tensor:
        return truncate(probs, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    @staticmethod
    def _point(scores: Tensor) -> Tensor:
        return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)
