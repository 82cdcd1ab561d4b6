"""The paper's proposer: a language model that reads the compressed context and drafts token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from rapid_integrations.decoding.proposal import Proposal, ProposerRequest
from rapid_integrations.decoding.reader import Reader, first_columns
from rapid_integrations.sampling import Constraint, Law, Penalties, Randomness, mask


class Drafter:
    """A model with the drafter's prompt, for two uses: to propose, and to score any proposal.

    Logits of the current round are kept, so that a token it has drafted itself is scored without another forward
    pass, and a proposal of somebody else in a single one.

    Args:
        sequence: the model and its own prompt, prefilled.
        vocab_size: V, the width shared with the target.
        law: for its temperature and truncation.
        penalty: the request's penalties, kept up to date by the decoding loop.
        eos_token_ids: it does not draft past the end of an answer.
        constraint: it drafts only what this allows.
    """

    source = "drafter"

    def __init__(
        self,
        sequence: Reader,
        vocab_size: int,
        law: Law,
        penalty: Penalties,
        eos_token_ids: frozenset[int] = frozenset(),
        constraint: Constraint | None = None,
    ) -> None:
        self.sequence = sequence
        self._vocab_size = vocab_size
        self._law = law
        self._penalty = penalty
        self._eos = eos_token_ids
        self._constraint = constraint
        self._rows: list[Tensor] = []  # row i: logits after i draft tokens of this round

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Drafter:
        """Return the request's own drafter: it proposes and scores with one cache."""
        return cast(Drafter, request.scorer)

    def propose(self, max_tokens: int, rng: Randomness) -> Proposal:
        """Draft autoregressively; q comes for free."""
        tokens: list[int] = []
        proposed: list[Tensor] = []
        while len(tokens) < max_tokens and not (tokens and tokens[-1] in self._eos):
            logits = self._penalty.apply(self.logits(tokens, len(tokens)), tokens)
            allowed = None if self._constraint is None else self._constraint.allowed(tokens)
            distribution = self._law.propose(logits, allowed)
            if distribution is None:
                tokens.append(self._law.ops.best(mask(logits, allowed)))
            else:
                tokens.append(rng.draw(distribution))
                proposed.append(distribution)
        return Proposal(tuple(tokens), proposed or None, self.source)

    def logits(self, draft: Sequence[int], position: int) -> Tensor:
        """Return the logits (V,) after the first `position` tokens of `draft`.

        What is missing is computed in one forward pass. A proposal of which nothing was scored yet is fed whole: its
        last row costs next to nothing then, and a full acceptance needs it.
        """
        have = len(self._rows)
        if position >= have:
            fed = max(have - 1, 0)  # draft tokens in the cache already
            upto = len(draft) if have == 0 else position
            rows = self.sequence.extend(draft[fed:upto], keep=upto + 1 - have)
            self._rows += first_columns(rows, self._vocab_size).unbind()
        return self._rows[position]

    def known_logits(self, position: int) -> Tensor | None:
        """Return the logits (V,) after `position` draft tokens of this round, if they were needed; no model runs."""
        return self._rows[position] if position < len(self._rows) else None

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the text; the cache keeps what was drafted right."""
        self.sequence.commit(token_ids)
        self._rows = []


class ProposerModel(Drafter):
    """A further model with the drafter's prompt, which proposes only; the drafter scores its proposal in one pass.

    Where the drafter is large, this is what makes it affordable: it reads K tokens at once instead of writing them one
    by one.
    """

    source = "draft_lm"

    @classmethod
    def from_request(cls, request: ProposerRequest) -> ProposerModel:
        """Return the request's own."""
        return cast(ProposerModel, request.draft_lm)
