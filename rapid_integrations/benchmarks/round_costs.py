"""Model the costs and tokens of a round of speculative decoding, and the resulting speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rapid_integrations.outputs import DecodeStats

MAX_DRAFT_LENGTH = 32
_CERTAIN = 0.9999  # replaces 1, which the geometric sum does not allow


def expected_tokens(acceptance: float, draft_length: float) -> float:
    """Return the tokens of a round: (1 - a^(K+1)) / (1 - a), the sum of a^0 to a^K.

    Args:
        acceptance: a, the probability that a draft token is accepted, given that those before it are.
        draft_length: K.
    """
    a = min(acceptance, _CERTAIN)
    return float((1.0 - a ** (draft_length + 1)) / (1.0 - a))


def per_token_acceptance(accepted_per_round: float, draft_length: float) -> float:
    """Return the a of `expected_tokens` that gives this many accepted tokens a round; solved by bisection.

    The accepted share of draft tokens is not this a: after a rejection the rest of a draft is lost, right or wrong.
    """
    low, high = 0.0, _CERTAIN
    for _ in range(40):
        middle = (low + high) / 2
        if expected_tokens(middle, draft_length) - 1.0 < accepted_per_round:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@dataclass(frozen=True)
class RoundCosts:
    """The cost model of a round, with times in seconds.

    Attributes:
        acceptance: a, per token.
        draft_s: one draft token, including its choice.
        verify_s: the target's pass over one token.
        verify_per_token_s: what each further token of that pass adds.
        score_s: the drafter's other passes, or its own row of a shared one, per round.
        outside_s: all other work per round (the law, acceptance, text).
    """

    acceptance: float
    draft_s: float
    verify_s: float
    verify_per_token_s: float = 0.0
    score_s: float = 0.0
    outside_s: float = 0.0

    def tps(self, draft_length: int) -> float:
        """Return tokens/s at a fixed draft length. Length 0 is the target alone."""
        if not draft_length:
            return 1.0 / (self.verify_s + self.outside_s)
        verify = self.verify_s + draft_length * self.verify_per_token_s
        seconds = draft_length * self.draft_s + verify + self.score_s + self.outside_s
        return expected_tokens(self.acceptance, draft_length) / seconds

    def best(self) -> tuple[float, int]:
        """Return the best tokens/s of any fixed draft length, and that length."""
        return max((self.tps(k), k) for k in range(MAX_DRAFT_LENGTH + 1))

    def ideals(self) -> dict[str, float]:
        """Return, for each cost, the best tokens/s if it alone were ideal."""
        without = {
            "rejected drafts": replace(self, acceptance=_CERTAIN),
            "the cost of a draft token": replace(self, draft_s=0.0),
            "the cost of verifying further tokens": replace(self, verify_per_token_s=0.0),
            "the drafter's scoring passes": replace(self, score_s=0.0),
            "work outside these passes": replace(self, outside_s=0.0),
        }
        return {name: costs.best()[0] for name, costs in without.items()}

    def limit(self) -> tuple[str, float]:
        """Return the cost whose absence would help most, and the tokens/s without it."""
        ideals = self.ideals()
        name = max(ideals, key=ideals.__getitem__)
        return name, ideals[name]


def measured_costs(rapid: Sequence[DecodeStats], alone: Sequence[DecodeStats]) -> RoundCosts | None:
    """Return the costs of a run's own rounds, or None if nothing was drafted.

    A pass that target and drafter share has two rows for each draft token, and one for the drafter's distribution that
    the law needs without a draft, too. What the pass takes beyond a single row is split alike among them.

    Args:
        rapid: statistics of the answers with drafts.
        alone: statistics of the same answers by the target alone.
    """
    drafted, rounds = sum(s.drafted_tokens for s in rapid), sum(s.rounds for s in rapid)
    steps = sum(s.rounds for s in alone)
    if not drafted or not steps:
        return None
    draft_length = drafted / rounds
    verify, single = sum(s.verify_s for s in rapid) / rounds, sum(s.verify_s for s in alone) / steps
    phases_s = sum(s.propose_s + s.score_s + s.verify_s for s in rapid)
    further, score = max(0.0, verify - single), sum(s.score_s for s in rapid) / rounds
    if all(s.scored_with_target for s in rapid):
        row = further / (2 * draft_length + 1)
        further, score = further - row, score + row
    return RoundCosts(
        acceptance=per_token_acceptance(sum(s.accepted_tokens for s in rapid) / rounds, draft_length),
        draft_s=sum(s.propose_s for s in rapid) / drafted,
        verify_s=single,
        verify_per_token_s=further / draft_length,
        score_s=score,
        outside_s=max(0.0, sum(s.decode_s for s in rapid) - phases_s) / rounds,
    )
