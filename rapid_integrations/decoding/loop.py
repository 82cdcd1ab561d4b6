"""The decoding loop: propose, pass, accept and commit until the answer ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.observer import Observer, Round
from rapid_integrations.decoding.passes import Steps, Wanted
from rapid_integrations.decoding.proposal import Committed, Proposal, Proposer, Scorer
from rapid_integrations.decoding.reader import Reader, first_columns
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.stopping import Stopping, Taken
from rapid_integrations.sampling import (
    Randomness,
    allowed_prefix,
    paper_residual,
    verify,
)


def decode(
    *,
    target: Reader,
    proposer: Proposer,
    scorer: Scorer | None,
    rules: Rules,
    stopping: Stopping,
    rng: Randomness,
    recorder: Recorder,
    emit: Callable[[Taken], None],
    observer: Observer | None = None,
) -> Steps[None]:
    """Give the output to `emit`, one round at a time, until the answer ends.

    For any proposer and draft length, each token follows the law given the tokens before it. The exception is the law
    "paper", which is not exact and says so.

    Args:
        target: the target with its prefilled prompt.
        proposer: proposes draft tokens, and chooses how many.
        scorer: the drafter; needed if the law uses q.
        rules: the rules of the output, shared with proposer and scorer.
        stopping: cuts a round's tokens at the end of the answer.
        rng: the request's randomness.
        recorder: counts and times.
        emit: takes the output of each round.
        observer: sees every round; its time is not counted.
    """
    law, constraint = rules.law, rules.constraint
    while True:
        # 1) propose; a round gives at most K + 1 tokens, so no draft goes past the last token wanted
        before = dict(recorder.seconds)
        with recorder.phase("propose"):
            proposal = proposer.propose(stopping.remaining - 1, rng)
            if not isinstance(proposal, Proposal):
                proposal = yield from proposal
            draft = proposal.token_ids
            if constraint is not None and proposal.probs is None:
                draft = draft[: allowed_prefix(constraint, draft)]  # copied text may violate it

        # 2) pass: the target reads the whole draft, and the drafter scores what it has not written itself
        z = yield from _read(target, scorer, draft, rules.vocab_size, recorder)

        # 3) accept a prefix; correct the first wrong token, or add one after a fully accepted draft
        position_laws = _PositionLaws(rules, z, draft, proposal.probs, scorer)
        residual_at = position_laws.paper_residual if law.kind == "paper" and not law.greedy else None
        verdict = verify(draft, proposal.probs, position_laws.law, rng, residual_at, law.ops)
        tokens = list(draft[: verdict.accepted])
        if verdict.correction is not None:
            tokens.append(verdict.correction)
        elif rules.eos_token_ids.isdisjoint(tokens):
            if scorer is not None and not scorer.scores(len(draft)):
                with recorder.phase("score"):
                    yield from scorer.score(draft)
            tokens.append(rng.draw(position_laws.bonus(len(draft))))

        # 4) commit the output; every cache discards the rest
        taken = stopping.take(tokens)
        accepted = min(verdict.accepted, len(taken.token_ids))
        times = _times(len(draft), verdict.accepted, before, recorder.seconds)
        if observer is not None:
            at = recorder.now()
            corrected = verdict.correction is not None
            elapsed_s = at - recorder.decode_started
            observer.observe(Round(tuple(draft), proposal.source, z, accepted, corrected, taken, times, elapsed_s))
            recorder.waited(recorder.now() - at)
        for each in _distinct(target, *proposer.parts, scorer, constraint):
            each.commit(taken.token_ids)
        rules.penalty.add(taken.token_ids)
        recorder.finish_round(len(draft), accepted, len(taken.token_ids))
        proposer.observe(times)
        emit(taken)
        if taken.finish_reason is not None:
            return


class _PositionLaws:
    """The laws of one round, each formed on first use, because a rejection makes later ones unnecessary."""

    def __init__(
        self,
        rules: Rules,
        z: Tensor,
        draft: tuple[int, ...],
        proposed: Sequence[Tensor] | None,
        scorer: Scorer | None,
    ) -> None:
        self._law, self._penalty, self._constraint = rules.law, rules.penalty, rules.constraint
        self._z = z  # (K + 1, V)
        self._draft = draft
        self._proposed = proposed
        self._scorer = scorer
        self._formed: dict[int, Tensor] = {}

    def law(self, position: int) -> Tensor:
        """Return the law (V,) after the first `position` draft tokens."""
        if position not in self._formed:
            drafter_logits = None
            assert self._scorer is not None or not self._law.needs_drafter
            if self._scorer is not None and not self._scorer.lost:
                drafter_logits = self._penalised(self._scorer.logits(position), position)
            self._formed[position] = self._form(position, drafter_logits)
        return self._formed[position]

    def target(self, position: int) -> Tensor:
        """Return p (V,), truncated and masked like the law."""
        return self._form(position, None)

    def bonus(self, position: int) -> Tensor:
        """Return the distribution of the token after a fully accepted draft: the law, or p in the paper.

        The paper has no greedy rule, and a round without a draft has no bonus token. Both follow p_hat.
        """
        published = self._law.kind == "paper" and not self._law.greedy and position > 0
        return self.target(position) if published else self.law(position)

    def paper_residual(self, position: int) -> Tensor:
        """Return the distribution of Eq. 10 at a rejected position."""
        assert self._proposed is not None
        proposed = self._proposed[position].to(self._z.device)
        return paper_residual(self.target(position), self.law(position), proposed)

    def _form(self, position: int, drafter_logits: Tensor | None) -> Tensor:
        allowed = None if self._constraint is None else self._constraint.allowed(self._draft[:position])
        return self._law.form(self._penalised(self._z[position], position), drafter_logits, allowed)

    def _penalised(self, logits: Tensor, position: int) -> Tensor:
        return self._penalty.apply(logits, self._draft[:position])


def scores_in_the_same_pass(target: Reader, scorer: Scorer | None) -> bool:
    """Whether target and drafter read a draft together: they share their weights, which are then read once for both."""
    if scorer is None or scorer.elsewhere:
        return False
    return scorer.reader.model is target.model and target.model.passes_together


def _read(
    target: Reader, scorer: Scorer | None, draft: tuple[int, ...], vocab_size: int, recorder: Recorder
) -> Steps[Tensor]:
    """Return the target's logits (K + 1, V) at every position of a draft. Afterwards its drafter's are known, too.

    Only those behind the last token of a draft that the drafter wrote itself may still be missing: they are needed if
    the whole draft is accepted.
    """
    if scorer is not None:
        scorer.begin(draft)
    together = scores_in_the_same_pass(target, scorer)
    scoring = scorer.wants(draft) if scorer is not None and together else None
    with recorder.phase("verify"):
        rows = target.wants(draft, len(draft) + 1)
        z, *scored = yield Wanted(target.model, (rows,) if scoring is None else (rows, scoring))
    if scorer is not None and scoring is not None:
        scorer.scored(*scored)
    elif scorer is not None and not scorer.scores(max(len(draft) - 1, 0)):
        with recorder.phase("score"):
            yield from scorer.score(draft)
    return first_columns(z, vocab_size)


def _distinct(*parts: Committed | None) -> list[Committed]:
    """Return the parts that are not None, each once, as the drafter may propose and score with one cache."""
    return [part for index, part in enumerate(parts) if part is not None and part not in parts[:index]]


def _times(drafted: int, accepted: int, before: dict[str, float], after: dict[str, float]) -> RoundTimes:
    spent = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in ("propose", "score", "verify")}
    return RoundTimes(drafted, accepted, spent["propose"], spent["score"], spent["verify"])
