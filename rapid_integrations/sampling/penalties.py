"""What is done to logits before a distribution is formed: tokens that were there become less likely, others biased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from rapid_integrations.sampling.sending import sent


class Penalties:
    """The penalties of one request: repetition, then frequency and presence.

    Target and drafter are penalised alike: over the target's prompt and the output (repetition, as transformers
    computes it; CTRL, arXiv 1909.05858), and over the output alone (frequency and presence, OpenAI's definition: a
    token that was written c times has its logit lowered by c * frequency + (c > 0) * presence). A bias is added to
    single tokens last.

    Args:
        repetition: logits of seen tokens are divided by it where positive, multiplied where negative; 1 is off.
        prompt_ids: the target's prompt.
        vocab_size: V.
        device: where the logits are.
        frequency, presence: see above; 0 is off, below 0 makes tokens that were written more likely.
        bias: what is added to the logits of single tokens, by id.
        ends: tokens that cannot be among the first `least` of the output, as transformers' `min_new_tokens` has it.
        least: see `ends`.
    """

    def __init__(
        self,
        repetition: float,
        prompt_ids: Iterable[int],
        vocab_size: int,
        device: torch.device | str = "cpu",
        *,
        frequency: float = 0.0,
        presence: float = 0.0,
        bias: Iterable[tuple[int, float]] = (),
        ends: Iterable[int] = (),
        least: int = 0,
    ) -> None:
        self.repetition, self.frequency, self.presence = repetition, frequency, presence
        self._seen: Tensor | None = None  # (V,) bool, for the repetition penalty
        if repetition != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._mark(self._seen, prompt_ids)
        self._written: Counter[int] = Counter()  # of the output, by token
        self._lowered: Tensor | None = None  # (V,) what each token of the output loses
        if frequency or presence:
            self._lowered = torch.zeros(vocab_size, dtype=torch.float32, device=device)
        self._bias: Tensor | None = None  # (V,)
        if pairs := dict(bias):
            self._bias = torch.zeros(vocab_size, dtype=torch.float32, device=device)
            ids = sent(torch.tensor(list(pairs), dtype=torch.long), self._bias.device)
            self._bias[ids] = sent(torch.tensor(list(pairs.values()), dtype=torch.float32), self._bias.device)
        self._length, self._least = 0, least  # tokens of the output
        last = torch.tensor([token for token in ends if token < vocab_size], dtype=torch.long)
        self._ends = sent(last, torch.device(device))

    @property
    def depends_on_text(self) -> bool:
        """Whether logits depend on which tokens were written before, or on how many."""
        return self._seen is not None or self._lowered is not None or self._length < self._least

    def add(self, token_ids: Iterable[int]) -> None:
        """Make further tokens part of the output."""
        token_ids = list(token_ids)
        self._length += len(token_ids)
        if self._seen is not None:
            self._mark(self._seen, token_ids)
        if self._lowered is not None:
            self._written.update(token_ids)
            self._lower(self._lowered, {token: self._written[token] for token in token_ids})

    def apply(self, logits: Tensor, draft: Sequence[int] = ()) -> Tensor:
        """Return the penalised logits at one position.

        Args:
            logits: (V,).
            draft: tokens drafted before this position, which count as written here and only here.
        """
        if self._seen is not None:
            logits = self._repeated(logits, self._seen, draft)
        if self._lowered is not None:
            lowered = self._lowered.to(logits.device)
            if draft:
                lowered = lowered.clone()
                self._lower(lowered, {token: self._written[token] + n for token, n in Counter(draft).items()})
            logits = logits - lowered
        if self._bias is not None:
            logits = logits + self._bias.to(logits.device)
        if self._length + len(draft) < self._least:
            logits = logits.index_fill(-1, self._ends.to(logits.device), -torch.inf)
        return logits

    def apply_rows(self, logits: Tensor, draft: Sequence[int]) -> Tensor:
        """Return the penalised logits at every position of a chain.

        Args:
            logits: (R, V).
            draft: at least R - 1 tokens; row i lies behind the first i of them.
        """
        if not self.depends_on_text:
            return self.apply(logits)
        return torch.stack([self.apply(row, draft[:place]) for place, row in enumerate(logits.unbind())])

    def _repeated(self, logits: Tensor, seen: Tensor, draft: Sequence[int]) -> Tensor:
        seen = seen.to(logits.device)
        if draft:
            seen = seen.clone()
            self._mark(seen, draft)
        return torch.where(seen, torch.where(logits > 0, logits / self.repetition, logits * self.repetition), logits)

    def _lower(self, lowered: Tensor, times: Mapping[int, int]) -> None:
        """Set what tokens lose that were written so many times."""
        losses = [count * self.frequency + self.presence for count in times.values()]
        ids = sent(torch.tensor(list(times), dtype=torch.long), lowered.device)
        lowered[ids] = sent(torch.tensor(losses, dtype=lowered.dtype), lowered.device)

    @staticmethod
    def _mark(seen: Tensor, token_ids: Iterable[int]) -> None:
        # A prompt may hold ids of padding rows, which have no logit here.
        ids = [token for token in token_ids if token < seen.shape[0]]
        seen[sent(torch.tensor(ids, dtype=torch.long), seen.device)] = True
