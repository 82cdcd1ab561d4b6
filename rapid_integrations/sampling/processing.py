"""What is done to logits before a distribution is formed (penalties), and to a law after (truncation)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_NUCLEUS_CANDIDATES = 1024  # top-p rarely needs more of a vocabulary sorted than this


class RepetitionPenalty:
    """Makes tokens that stand in the prompt or the output less likely, as transformers computes it (CTRL, 1909.05858).

    Target and drafter are penalised over the same set: the target's prompt and the output.

    Args:
        penalty: logits of seen tokens are divided by it where positive, multiplied where negative; 1 is off.
        prompt_ids: the target's prompt.
        vocab_size: V.
        device: where the logits are.
    """

    def __init__(
        self, penalty: float, prompt_ids: Iterable[int], vocab_size: int, device: torch.device | str = "cpu"
    ) -> None:
        self.penalty = penalty
        self._seen: Tensor | None = None
        if penalty != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self.add(prompt_ids)

    def add(self, token_ids: Iterable[int]) -> None:
        """Count further tokens as seen."""
        if self._seen is not None:
            self._mark(self._seen, token_ids)

    def apply(self, logits: Tensor, draft: Sequence[int] = ()) -> Tensor:
        """Return the penalised logits at one position.

        Args:
            logits: (V,).
            draft: tokens drafted before this position, which count as seen here and only here.
        """
        if self._seen is None:
            return logits
        seen = self._seen.to(logits.device)
        if draft:
            seen = seen.clone()
            self._mark(seen, draft)
        return torch.where(seen, torch.where(logits > 0, logits / self.penalty, logits * self.penalty), logits)

    @staticmethod
    def _mark(seen: Tensor, token_ids: Iterable[int]) -> None:
        # A prompt may hold ids of padding rows, which have no logit here.
        ids = [token for token in token_ids if token < seen.shape[0]]
        seen[torch.tensor(ids, dtype=torch.long, device=seen.device)] = True


def truncate(probs: Tensor, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """Drop improbable tokens, in the order top-k, top-p, min-p, and renormalise. The best token always stays.

    The edges are transformers': top-k keeps ties with the k-th token; top-p keeps the smallest set of best tokens
    whose probability reaches `top_p`; min-p drops what is under `min_p` times the best.

    Args:
        probs: (V,), summing to 1.
        top_k: 0 is off.
        top_p: 1 is off.
        min_p: 0 is off.

    Returns:
        (V,), summing to 1.
    """
    kept = probs
    if 0 < top_k < probs.shape[-1]:
        kept = kept.where(kept >= kept.topk(top_k).values[-1], kept.new_zeros(()))
        kept = kept / kept.sum()
    if top_p < 1.0:
        kept = _nucleus(kept, top_p)
        kept = kept / kept.sum()
    if min_p > 0.0:
        kept = kept.where(kept >= min_p * kept.max(), kept.new_zeros(()))
        kept = kept / kept.sum()
    return kept


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    values, order = probs.topk(min(_NUCLEUS_CANDIDATES, probs.shape[-1]))
    if values.sum() < top_p:
        values, order = probs.sort(descending=True)
    # A token stays while the mass of the better ones is under top_p; so the first always does.
    better = values.cumsum(-1) - values
    stays = better < top_p
    return torch.zeros_like(probs).scatter(-1, order[stays], values[stays])
