"""A hierarchy of drafts: copies or a small model draft for a sparse view of the target, which drafts for the target.

The sparse view reads several guessed tokens in one pass, and accepts or corrects them as the target does with a draft.
So the tokens that it hands on are drawn from its own distribution, and cost less than one pass each. Source: TriForce
(arXiv 2404.11912).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from rapid_integrations.decoding.draft_length import DraftLength, RoundTimes
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import Proposal, Proposer, ProposerRequest
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.proposers.own_cache import sparse_drafter
from rapid_integrations.proposers.prompt_lookup import PromptLookup
from rapid_integrations.sampling import Randomness, mask, verify


class TriForce(Proposer):
    """Proposes what the target writes over few of its rows, with the help of a cheaper proposer.

    Args:
        view: the target over a sparse view of its cache.
        cheap: drafts for the view.
        rules: of the request.
        length: chooses K.
        guesses: chooses how many tokens are guessed for a pass of the view.
    """

    source: ClassVar[str] = "triforce"

    def __init__(
        self, view: Drafter, cheap: PromptLookup | Drafter, rules: Rules, length: DraftLength, guesses: DraftLength
    ) -> None:
        self._view, self._cheap, self._rules = view, cheap, rules
        self._length, self._guesses = length, guesses

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the target's cache. The request's draft model drafts for it, or else a lookup does."""
        view, cost = sparse_drafter(request)
        lengths = request.lengths
        guesses = lengths.of_copies() if request.draft_lm is None else lengths.of_drafts()
        cheap = request.draft_lm or PromptLookup.from_request(request)
        return cls(view, cheap, request.rules, lengths.of_writer(cost), guesses)

    def propose(self, limit: int, rng: Randomness) -> Steps[Proposal]:
        """Draft as many tokens as pay, up to `limit`; none behind a text of one token, which has no rows yet."""
        wanted = min(self._length.next(), limit) if self._view.reader.cache.length else 0
        tokens: list[int] = []
        probs: list[Tensor] = []
        while len(tokens) < wanted and not (tokens and tokens[-1] in self._rules.eos_token_ids):
            laws = yield from self._pass(tokens, wanted - len(tokens) - 1, rng)
            if laws is None:
                break
            guessed = laws.guess.token_ids
            verdict = verify(guessed, laws.guess.probs, laws.at, rng, None, self._rules.law.ops)
            new = list(guessed[: verdict.accepted])
            if verdict.correction is not None:
                new.append(verdict.correction)
            elif self._rules.eos_token_ids.isdisjoint(new):
                new.append(rng.draw(laws.at(len(new))))
            if not self._rules.law.greedy:
                probs += [laws.at(place) for place in range(len(new))]
            for drafter in (self._view, self._cheap):
                if isinstance(drafter, Drafter):
                    drafter.keep(len(tokens) + verdict.accepted)
            tokens += new
            self._guesses.observe(RoundTimes(len(guessed), verdict.accepted, 0.0, 0.0, 0.0))
        return Proposal(tuple(tokens), probs or None, self.source)

    def _pass(self, before: list[int], most: int, rng: Randomness) -> Steps[_Laws | None]:
        """Guess at most so many tokens behind those of this round, and let the view read them."""
        guess = Proposal(())
        if isinstance(self._cheap, PromptLookup):
            found = self._cheap.find(min(self._guesses.next(), most), before)
            guess = Proposal(self._allowed(found, before))
        elif (count := min(self._guesses.next(), most)) > 0:
            guess = yield from self._cheap.draft(count, rng, behind=before)
        yield from self._view.score([*before, *guess.token_ids])
        laws = _Laws(self._view, self._rules, before, guess)
        return laws if laws.possible else None

    def _allowed(self, tokens: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
        """Return the beginning of copied tokens that the constraint allows."""
        constraint = self._rules.constraint
        for place, token in enumerate(tokens if constraint is not None else ()):
            assert constraint is not None
            if not constraint.allowed([*before, *tokens[:place]])[token]:
                return tuple(tokens[:place])
        return tuple(tokens)

    def observe(self, times: RoundTimes) -> None:
        """Learn how many tokens pay."""
        self._length.observe(times)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Report the tokens to both drafters."""
        self._view.commit(token_ids)
        self._cheap.commit(token_ids)


class _Laws:
    """The view's distributions behind tokens of this round and those that were guessed behind them."""

    def __init__(self, view: Drafter, rules: Rules, before: Sequence[int], guess: Proposal) -> None:
        self._view, self._rules, self._before, self.guess = view, rules, list(before), guess
        self._formed: dict[int, Tensor] = {}

    @property
    def possible(self) -> bool:
        """Whether the view's logits leave anything that the constraint allows."""
        logits, allowed = self._restricted(0)
        return allowed is None or not bool(mask(logits, allowed).isneginf().all())

    def at(self, place: int) -> Tensor:
        """Return the distribution (V,) behind the first `place` guessed tokens; a point mass if greedy."""
        if place not in self._formed:
            logits, allowed = self._restricted(place)
            law = self._rules.law
            formed = law.propose(logits, allowed)
            if formed is None:
                formed = law.ops.point_mass(law.ops.best(mask(logits, allowed)), logits)
            self._formed[place] = formed
        return self._formed[place]

    def _restricted(self, place: int) -> tuple[Tensor, torch.Tensor | None]:
        before = [*self._before, *self.guess.token_ids[:place]]
        constraint = self._rules.constraint
        allowed = None if constraint is None else constraint.allowed(before)
        return self._view.penalised(len(before), before), allowed
