"""A round's laws and verdict, decided by the host position by position: chains, trees, constraints, and every law."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rapid_integrations.decoding.proposal import Proposal, Scorer
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.errors import NotANumberError
from rapid_integrations.sampling import Randomness, paper_residual, verify, verify_tree
from rapid_integrations.sampling.trees import path_to


@dataclass(frozen=True)
class Decided:
    """What became of a proposal.

    Attributes:
        proposal: it, with tokens that the host knows. A chain that the drafter wrote ends with the answer.
        path: the indices of the tokens that stand, each followed by the next.
        correction: the token behind them if others were proposed there, which were all rejected.
        bonus: the token behind a whole path. None if it has not been drawn, or if the path ends the answer.
    """

    proposal: Proposal
    path: tuple[int, ...]
    correction: int | None
    bonus: int | None = None


def decide_on_host(
    target: Reader, rules: Rules, z: Tensor, proposal: Proposal, scorer: Scorer | None, rng: Randomness
) -> Decided:
    """Accept a path of a proposal, and draw the correction where every token is wrong.

    Args:
        target: who read the proposal.
        rules: of the request.
        z: (K + 1, V), the target's logits at every place.
        proposal: a chain or a tree.
        scorer: who knows the drafter's logits.
        rng: the request's randomness.

    Raises:
        NotANumberError: the passes have left it to the round to look for NaN, and there is some.
    """
    law, draft, parents = rules.law, proposal.token_ids, proposal.parents
    if rules.on_device:
        _require_numbers(target, z, scorer, len(draft))
    laws = Laws(rules, z, proposal, scorer)
    stands = laws.tolerates if law.kind == "lenient" else None
    if parents is None:
        residual_at = laws.paper_residual if law.kind == "paper" and not law.greedy else None
        verdict = verify(draft, proposal.probs, laws.law, rng, residual_at, law.ops, stands)
        return Decided(proposal, tuple(range(verdict.accepted)), verdict.correction)
    in_tree = verify_tree(draft, parents, proposal.probs, laws.law, rng, law.ops, stands)
    return Decided(proposal, in_tree.path, in_tree.correction)


def _require_numbers(target: Reader, z: Tensor, scorer: Scorer | None, places: int) -> None:
    """Raise NotANumberError if a logit of the target or the drafter is NaN."""
    if bool(z.isnan().any()):
        raise NotANumberError.of_model(target.model.name)
    known = [] if scorer is None else [scorer.logits(place) for place in range(places + 1) if scorer.scores(place)]
    if scorer is not None and any(bool(row.isnan().any()) for row in known):
        raise NotANumberError.of_model(scorer.reader.model.name)


class Laws:
    """The laws of one round, each formed on first use, because a rejection makes later ones unnecessary.

    A place in the draft is 0 for the committed text, and i + 1 for what follows draft token i.
    """

    def __init__(self, rules: Rules, z: Tensor, proposal: Proposal, scorer: Scorer | None) -> None:
        self._law, self._penalty, self._constraint = rules.law, rules.penalty, rules.constraint
        self._z = z  # (K + 1, V)
        self._proposal = proposal
        self._scorer = scorer
        self._formed: dict[int, Tensor] = {}

    def law(self, place: int) -> Tensor:
        """Return the law (V,) at a place."""
        if place not in self._formed:
            drafter_logits = None
            assert self._scorer is not None or not self._law.needs_drafter
            if self._scorer is not None and not self._scorer.lost:
                drafter_logits = self._scorer.penalised(place, self._before(place))
            self._formed[place] = self._form(place, drafter_logits)
        return self._formed[place]

    def target(self, place: int) -> Tensor:
        """Return p (V,), truncated and masked like the law."""
        return self._form(place, None)

    def bonus(self, place: int) -> Tensor:
        """Return the distribution of the token after a fully accepted path: the law, or p in the paper.

        The paper has no greedy rule, and a round without a draft has no bonus token. Both follow p_hat.
        """
        published = self._law.kind == "paper" and not self._law.greedy and place > 0
        return self.target(place) if published else self.law(place)

    def paper_residual(self, place: int) -> Tensor:
        """Return the distribution of Eq. 10 where the next token of a chain is rejected."""
        assert self._proposal.probs is not None
        proposed = self._proposal.probs[place]
        assert proposed is not None, "the drafter draws its tokens"
        return paper_residual(self.target(place), self.law(place), proposed.to(self._z.device))

    def tolerates(self, token: int) -> bool:
        """Whether the law "lenient" lets a draft token stand, given by its index."""
        parents = self._proposal.parents
        place = token if parents is None else parents[token] + 1
        z, allowed = self._restricted(place)
        return self._law.tolerates(z, self._proposal.token_ids[token], allowed)

    def _before(self, place: int) -> tuple[int, ...]:
        draft, parents = self._proposal.token_ids, self._proposal.parents
        return draft[:place] if parents is None else tuple(draft[each] for each in path_to(parents, place - 1))

    def _form(self, place: int, drafter_logits: Tensor | None) -> Tensor:
        z, allowed = self._restricted(place)
        return self._law.form(z, drafter_logits, allowed)

    def _restricted(self, place: int) -> tuple[Tensor, Tensor | None]:
        """Return the target's logits (V,) after penalties, and which tokens the constraint allows."""
        before = self._before(place)
        allowed = None if self._constraint is None else self._constraint.allowed(before)
        return self._penalty.apply(self._z[place], before), allowed
