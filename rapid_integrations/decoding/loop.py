"""The heart: propose, verify, correct, commit, until the answer ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from rapid_integrations.decoding.draft_length import DraftLength, RoundCosts
from rapid_integrations.decoding.observer import Observer, Round
from rapid_integrations.decoding.proposal import Proposer, Scorer, parts_of
from rapid_integrations.decoding.reader import Reader, first_columns
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.stopping import Stopping, Taken
from rapid_integrations.sampling import (
    Constraint,
    Law,
    Penalties,
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
    law: Law,
    vocab_size: int,
    penalty: Penalties,
    stopping: Stopping,
    draft_length: DraftLength,
    rng: Randomness,
    recorder: Recorder,
    turns: AbstractContextManager[None],
    constraint: Constraint | None = None,
    observer: Observer | None = None,
) -> Iterator[Taken]:
    """Yield the output, one round at a time.

    Whatever the proposer and the draft length, each token follows `law` given the tokens before it (except under the
    kind "paper", which is not exact and says so).

    Args:
        target: the target and its prompt, prefilled.
        proposer: guesses ahead.
        scorer: the drafter; needed when the law is formed with q.
        law: what the output follows.
        vocab_size: V, the width shared by target and drafter.
        penalty: shared with the proposer; grows with the output.
        stopping: cuts a round's tokens where the answer ends.
        draft_length: chooses K.
        rng: the request's randomness.
        recorder: counts and times.
        turns: held for one round at a time.
        constraint: what the output may look like: the law's mask, shared with the proposer.
        observer: is shown every round; its time is not counted.
    """
    while True:
        with turns:
            # K + 1 tokens come out of a round at most: never draft past the last one that is wanted.
            wanted = min(draft_length.next(), stopping.remaining - 1)

            # 1) propose
            before = dict(recorder.seconds)
            with recorder.phase("propose"):
                proposal = proposer.propose(wanted, rng)
                draft = proposal.token_ids
                if constraint is not None and proposal.probs is None:
                    draft = draft[: allowed_prefix(constraint, draft)]  # a copied text knows nothing of it

            # 2) verify: the target reads the whole draft in one pass
            with recorder.phase("verify"):
                z = first_columns(target.extend(draft, keep=len(draft) + 1), vocab_size)

            # 3) accept a prefix; correct the first wrong token, or add one behind a right draft
            position_laws = _PositionLaws(law, z, draft, proposal.probs, scorer, penalty, constraint, recorder)
            residual_at = position_laws.paper_residual if law.kind == "paper" and not law.greedy else None
            verdict = verify(draft, proposal.probs, position_laws.law, rng, residual_at, law.ops)
            tokens = list(draft[: verdict.accepted])
            if verdict.correction is not None:
                tokens.append(verdict.correction)
            elif stopping.eos_token_ids.isdisjoint(tokens):
                tokens.append(rng.draw(position_laws.bonus(len(draft))))

            # 4) commit what is output; every cache forgets the rest
            taken = stopping.take(tokens)
            accepted = min(verdict.accepted, len(taken.token_ids))
            costs = _costs(len(draft), verdict.accepted, before, recorder.seconds)
            if observer is not None:
                at = recorder.now()
                corrected = verdict.correction is not None
                elapsed_s = at - recorder.decode_started
                observer.observe(Round(tuple(draft), proposal.source, z, accepted, corrected, taken, costs, elapsed_s))
                recorder.waited(recorder.now() - at)
            for reader in _distinct(target, *parts_of(proposer), scorer, constraint):
                reader.commit(taken.token_ids)
            penalty.add(taken.token_ids)
            recorder.finish_round(len(draft), accepted, len(taken.token_ids))
            draft_length.observe(costs)
        paused = recorder.now()
        yield taken
        if taken.finish_reason is not None:
            return
        recorder.waited(recorder.now() - paused)


class _PositionLaws:
    """The laws of one round, each formed when it is asked for: a rejection makes the later ones needless."""

    def __init__(
        self,
        law: Law,
        z: Tensor,
        draft: tuple[int, ...],
        proposed: Sequence[Tensor] | None,
        scorer: Scorer | None,
        penalty: Penalties,
        constraint: Constraint | None,
        recorder: Recorder,
    ) -> None:
        self._law = law
        self._z = z  # (K + 1, V)
        self._draft = draft
        self._proposed = proposed
        self._scorer = scorer
        self._penalty = penalty
        self._constraint = constraint
        self._recorder = recorder
        self._formed: dict[int, Tensor] = {}

    def law(self, position: int) -> Tensor:
        """Return the law (V,) after the first `position` draft tokens."""
        if position not in self._formed:
            drafter_logits = None
            if self._law.needs_drafter:
                assert self._scorer is not None
                with self._recorder.phase("score"):
                    drafter_logits = self._scorer.logits(self._draft, position)
                drafter_logits = self._penalised(drafter_logits, position)
            self._formed[position] = self._form(position, drafter_logits)
        return self._formed[position]

    def target(self, position: int) -> Tensor:
        """Return p (V,), truncated and masked like the law."""
        return self._form(position, None)

    def bonus(self, position: int) -> Tensor:
        """Return what the token behind a fully accepted draft is drawn from: the law; in the paper, p.

        The paper has no greedy rule, and a round without a draft has nothing to be a bonus for: both follow p_hat.
        """
        published = self._law.kind == "paper" and not self._law.greedy and position > 0
        return self.target(position) if published else self.law(position)

    def paper_residual(self, position: int) -> Tensor:
        """Return Eq. 10 at a rejected position."""
        assert self._proposed is not None
        proposed = self._proposed[position].to(self._z.device)
        return paper_residual(self.target(position), self.law(position), proposed)

    def _form(self, position: int, drafter_logits: Tensor | None) -> Tensor:
        allowed = None if self._constraint is None else self._constraint.allowed(self._draft[:position])
        return self._law.form(self._penalised(self._z[position], position), drafter_logits, allowed)

    def _penalised(self, logits: Tensor, position: int) -> Tensor:
        return self._penalty.apply(logits, self._draft[:position])


def _distinct(
    *readers: Reader | Proposer | Scorer | Constraint | None,
) -> list[Reader | Proposer | Scorer | Constraint]:
    """Return the readers that are there, each once: the drafter may propose and score with one cache."""
    return [reader for index, reader in enumerate(readers) if reader is not None and reader not in readers[:index]]


def _costs(drafted: int, accepted: int, before: dict[str, float], after: dict[str, float]) -> RoundCosts:
    spent = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in ("propose", "score", "verify")}
    return RoundCosts(drafted, accepted, spent["propose"], spent["score"], spent["verify"])
