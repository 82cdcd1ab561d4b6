"""The law of a request: from the two models' logits at a position to the distribution that the output follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from rapid_integrations.sampling.constraint import mask
from rapid_integrations.sampling.mixture import mixed_logits
from rapid_integrations.sampling.ops import Ops, Shift
from rapid_integrations.sampling.rows import points, softmax_rows, truncate_rows
from rapid_integrations.sampling.torch_ops import REFERENCE

if TYPE_CHECKING:
    from rapid_integrations.config import Eta

_LEAST_TEMPERATURE = 1e-30  # float32 divides by this without flushing it to 0


@dataclass(frozen=True)
class Law:
    """How a distribution is formed at one position, always in this order: softmax, shift, tail rule, truncation, mask.

    The mask (which tokens a `Constraint` allows) comes last: what is left of the truncated law is renormalised. If
    truncation left nothing that is allowed, the untruncated law is masked instead; if all of the allowed mass
    underflows, the law is softmax(z / T) over the allowed tokens.

    Attributes:
        kind: "target" is p; "augmented" is p_hat; "paper" accepts against p_hat with the published residual and bonus;
            "lenient" is p, but a draft token also stands if it is nearly as likely as the best one (`tolerates`).
        temperature: 0 is greedy: a point mass on the argmax of the law formed at T = 1. (At T -> 0 the shift
            eta * T * (q - p) would vanish from the logits, and with it everything that the retrieval added.)
        leniency: for the kind "lenient": how likely a draft token has to be, as a share of the best one's probability.
        eta, relevance, trust, tail_rule, tail_alpha: see `augmented_target`.
        top_k, top_p, min_p: see `truncate`.
        ops: what computes it; no part of what the law is.
    """

    kind: Literal["target", "augmented", "paper", "lenient"]
    temperature: float = 0.0
    eta: Eta = "auto"
    relevance: float = 1.0
    trust: float = 0.0
    tail_rule: Literal["mask", "restore"] = "mask"
    tail_alpha: float = 0.1
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    leniency: float = 1.0
    ops: Ops = field(default=REFERENCE, compare=False, repr=False)

    @property
    def greedy(self) -> bool:
        """Whether the law is a point mass."""
        return self.temperature == 0.0

    @property
    def needs_drafter(self) -> bool:
        """Whether q is part of the law."""
        return self.kind in ("augmented", "paper")

    def softmax(self, logits: Tensor) -> Tensor:
        """Return softmax(logits / T), untruncated; T = 1 when greedy."""
        return self.ops.softmax(logits, self._temperature)

    def form(self, z: Tensor, drafter_logits: Tensor | None, allowed: Tensor | None = None) -> Tensor:
        """Return the law at one position.

        Args:
            z: (V,) target logits after penalties, float32.
            drafter_logits: (V,) the drafter's, after the same penalties; None for the kind "target".
            allowed: (V,) bool, the mask; None allows everything.

        Returns:
            (V,): p or p_hat, truncated and masked; a point mass when greedy.
        """
        if drafter_logits is None:
            return self._point(mask(z, allowed)) if self.greedy else self._restrict(self.softmax(z), z, allowed)
        if self.greedy and allowed is None:
            return self.ops.point_mass(self.ops.best_of_p_hat(z, drafter_logits, **self._shift), z)
        p_hat = self.ops.p_hat(z, drafter_logits, self._temperature, **self._shift)
        law = self._restrict(p_hat, z, allowed)
        return self._point(law) if self.greedy else law

    def form_rows(self, z: Tensor, drafter_logits: Tensor | None) -> Tensor:
        """Return what `form` gives for each row of logits (R, V) without a mask; `ops.rows` computes it.

        Only the kinds "target" and "augmented" have it.
        """
        assert self.ops.rows is not None, "the request's rounds are computed on the host"
        if drafter_logits is None:
            return points(z) if self.greedy else self._truncate_rows(softmax_rows(z, self._temperature))
        p_hat = self.ops.rows.p_hat(z, drafter_logits, self._temperature, **self._shift)
        return points(p_hat) if self.greedy else self._truncate_rows(p_hat)

    def propose_rows(self, drafter_logits: Tensor) -> Tensor:
        """Return what `propose` gives for each row of logits (R, V) without a mask, if the law is not greedy."""
        return self._truncate_rows(softmax_rows(drafter_logits, self._temperature))

    def tolerates(self, z: Tensor, token: int, allowed: Tensor | None = None) -> bool:
        """Whether the kind "lenient" lets a draft token stand without a trial. The output then does not follow p.

        Args:
            z: (V,) target logits after penalties, float32.
            token: the draft token.
            allowed: (V,) bool, the mask; None allows everything.
        """
        p = self._restrict(self.softmax(z), z, allowed)
        return float(p[token]) >= self.leniency * float(p.max())

    def propose(self, drafter_logits: Tensor, allowed: Tensor | None = None) -> Tensor | None:
        """Return what the drafter draws a token from: q, truncated and masked as the law is.

        None for a point mass on its best token.
        """
        return None if self.greedy else self._restrict(self.softmax(drafter_logits), drafter_logits, allowed)

    def mixed(self, drafter_logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return logits (V,) whose q is the weighted mean of several drafters' q; see `mixed_logits`."""
        return mixed_logits(drafter_logits, weights, self._temperature)

    @property
    def _temperature(self) -> float:
        """T at which distributions are formed."""
        return max(self.temperature or 1.0, _LEAST_TEMPERATURE)

    @property
    def _shift(self) -> Shift:
        return {
            "eta": self.eta,
            "relevance": self.relevance,
            "trust": self.trust,
            "tail_rule": self.tail_rule,
            "tail_alpha": self.tail_alpha,
        }

    def _restrict(self, probs: Tensor, logits: Tensor, allowed: Tensor | None) -> Tensor:
        """Truncate and mask `probs`, which may be overwritten; if none of it is left, `logits` stand in."""
        if allowed is None:
            return self._truncate(probs)
        allowed = allowed.to(probs.device)
        truncated = self._truncate(probs.clone())
        for candidate in (truncated, probs):
            kept = candidate.where(allowed, candidate.new_zeros(()))
            total = kept.sum()
            if total > torch.finfo(kept.dtype).tiny:  # denormal numbers have too few digits to be told apart
                return kept / total
        return self.softmax(mask(logits, allowed))

    def _truncate(self, probs: Tensor) -> Tensor:
        # Greedy takes the best of what is allowed, and of that truncation keeps the best or nothing.
        if self.greedy or not (self.top_k or self.top_p < 1.0 or self.min_p):
            return probs
        return self.ops.truncate(probs, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    def _truncate_rows(self, probs: Tensor) -> Tensor:
        return truncate_rows(probs, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    def _point(self, scores: Tensor) -> Tensor:
        return self.ops.point_mass(self.ops.best(scores), scores)
