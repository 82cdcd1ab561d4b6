"""The decoding loop: propose, pass, accept and commit until the answer ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from rapid_integrations.decoding.device_rounds import decide_on_device, decided_on_device
from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.host_rounds import Laws, decide_on_host
from rapid_integrations.decoding.observer import Observer, Round
from rapid_integrations.decoding.passes import Steps, Wanted
from rapid_integrations.decoding.proposal import Committed, Proposal, Proposer, Scorer
from rapid_integrations.decoding.reader import Reader, first_columns
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.stopping import Stopping, Taken
from rapid_integrations.sampling import ROOT, Randomness
from rapid_integrations.sampling.trees import children_of


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

    For any proposer and draft length, each token follows the law given the tokens before it. The exceptions are the
    laws "paper" and "lenient", which are not exact and say so.

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
    constraint = rules.constraint
    while True:
        # 1) propose; a round gives at most K + 1 tokens, so no draft goes past the last token wanted, and its rows fit
        # into one pass of few rows: many would be computed as those of a prompt are, with other last bits. A model that
        # always reads alone may say that it reads 0 or 1 row together.
        before = dict(recorder.seconds)
        with recorder.phase("propose"):
            proposal = proposer.propose(min(stopping.remaining, max(2, target.model.rows_together)) - 1, rng)
            if not isinstance(proposal, Proposal):
                proposal = yield from proposal
            if not _reads_trees(target, scorer):
                proposal = proposal.chain()
            if constraint is not None:
                proposal = proposal.allowed_by(constraint)  # copied text may violate it

        # 2) pass: the target reads the whole draft, and the drafter scores what it has not written itself
        z = yield from _read(target, scorer, proposal, rules, recorder)

        # 3) accept a path; correct where every token is wrong, or add one after a fully accepted path
        if decided_on_device(rules, proposal):
            decided = decide_on_device(target, rules, z, proposal, scorer, rng)
        else:
            decided = decide_on_host(target, rules, z, proposal, scorer, rng)
        proposal, path, correction = decided.proposal, decided.path, decided.correction
        draft, parents = proposal.token_ids, proposal.parents
        tokens = [draft[each] for each in path]
        if correction is not None:
            tokens.append(correction)
        elif rules.eos_token_ids.isdisjoint(tokens):
            if decided.bonus is not None:
                tokens.append(decided.bonus)
            else:
                if scorer is not None and not scorer.scores(len(draft)):
                    with recorder.phase("score"):
                        yield from scorer.score(draft, parents)
                tokens.append(rng.draw(Laws(rules, z, proposal, scorer).bonus(path[-1] + 1 if path else 0)))

        # 4) commit the output; every cache discards the rest
        taken = stopping.take(tokens)
        accepted = min(len(path), len(taken.token_ids))
        times = _times(len(draft), len(path), before, recorder.seconds)
        if observer is not None:
            at = recorder.now()
            seen = _seen_by_observers(proposal, path, z)
            elapsed_s = at - recorder.decode_started
            observer.observe(Round(*seen, accepted, correction is not None, taken, times, elapsed_s))
            recorder.waited(recorder.now() - at)
        for each in _distinct(target, *proposer.parts, scorer, constraint):
            each.commit(taken.token_ids)
        rules.penalty.add(taken.token_ids)
        recorder.finish_round(len(draft), accepted, len(taken.token_ids))
        proposer.observe(times)
        emit(taken)
        if taken.finish_reason is not None:
            return


def scores_in_the_same_pass(target: Reader, scorer: Scorer | None) -> bool:
    """Whether target and drafter read a draft together: they share their weights, which are then read once for both."""
    return scorer is not None and all(_shares(target, each) for each in scorer.members)


def _shares(target: Reader, drafter: Scorer) -> bool:
    return not drafter.elsewhere and drafter.reader.model is target.model and target.model.passes_together


def _reads_trees(target: Reader, scorer: Scorer | None) -> bool:
    """Whether whoever reads the drafts can read a tree."""
    if scorer is not None and scorer.elsewhere:
        return False
    members = () if scorer is None else scorer.members
    return target.model.reads_trees and all(each.reader.model.reads_trees for each in members)


def _read(target: Reader, scorer: Scorer | None, proposal: Proposal, rules: Rules, recorder: Recorder) -> Steps[Tensor]:
    """Return the target's logits (K + 1, V) at every place of a draft. Afterwards its drafter's are known, too.

    Only those behind the last token of a chain that the drafter wrote itself may still be missing: they are needed if
    the whole draft is accepted.
    """
    draft, parents = proposal.token_ids, proposal.parents
    if scorer is not None:
        scorer.begin(draft)
    members = () if scorer is None else scorer.members
    wanted = [(each, each.wants(draft, parents)) for each in members if _shares(target, each)]
    scoring = [(each, rows) for each, rows in wanted if rows is not None]
    with recorder.phase("verify"):
        rows = target.wants(draft, len(draft) + 1, parents)
        wanted_rows = (rows, *(own for _, own in scoring))
        # A round that is decided on the device looks for NaN there, and the host hears of it with the verdict.
        checked = tuple(replace(each, check=not rules.on_device) for each in wanted_rows)
        z, *scored = yield Wanted(target.model, checked)
    for (each, _), logits in zip(scoring, scored, strict=True):
        each.scored(logits)
    if scorer is not None and len(scoring) < len(members):
        if parents is not None or not scorer.scores(max(len(draft) - 1, 0)):
            with recorder.phase("score"):
                yield from scorer.score(draft, parents)
    return first_columns(z, rules.vocab_size)


def _seen_by_observers(
    proposal: Proposal, path: tuple[int, ...], z: Tensor
) -> tuple[tuple[int, ...], tuple[int, ...], str, Tensor]:
    """Return a draft, its places, its source and the logits. Of a tree this is the path, and what was tried first next.

    Observers show what became of a chain.
    """
    draft, parents = proposal.token_ids, proposal.parents
    if parents is None:
        return tuple(draft), tuple(range(len(draft) + 1)), proposal.source, z[: len(draft) + 1]
    shown = [*path, *children_of(parents, path[-1] if path else ROOT)[:1]]
    places = (0, *(each + 1 for each in shown))
    return tuple(draft[each] for each in shown), places, proposal.source, z[list(places)]


def _distinct(*parts: Committed | None) -> list[Committed]:
    """Return the parts that are not None, each once, as the drafter may propose and score with one cache."""
    return [part for index, part in enumerate(parts) if part is not None and part not in parts[:index]]


def _times(drafted: int, accepted: int, before: dict[str, float], after: dict[str, float]) -> RoundTimes:
    spent = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in ("propose", "score", "verify")}
    return RoundTimes(drafted, accepted, spent["propose"], spent["score"], spent["verify"])
