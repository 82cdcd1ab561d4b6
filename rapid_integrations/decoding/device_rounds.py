"""A round's laws and verdict, computed where the logits lie: the host waits once, for a few numbers.

The host's own way (`host_rounds.py`) takes one position after another, and waits for a device at each of them. The
results are the same: the same tokens, the same numbers of accepted tokens, and as many uniform numbers, which decide
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rapid_integrations.decoding.device_tokens import DeviceTokens
from rapid_integrations.decoding.host_rounds import Decided
from rapid_integrations.decoding.proposal import Proposal, Scorer
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.errors import NotANumberError
from rapid_integrations.sampling import Randomness
from rapid_integrations.sampling.sending import sent


def decided_on_device(rules: Rules, proposal: Proposal) -> bool:
    """Return whether a round is decided where its logits lie: not that of a tree, or of drawn and copied tokens."""
    if not rules.on_device or proposal.parents is not None:
        return False
    probs = proposal.probs
    return probs is None or len({each is None for each in probs}) < 2


def decide_on_device(
    target: Reader, rules: Rules, z: Tensor, proposal: Proposal, scorer: Scorer | None, rng: Randomness
) -> Decided:
    """Accept a prefix of a chain and draw the token behind it; waits for the device once.

    Args:
        target: who read the chain.
        rules: of the request.
        z: (K + 1, V), the target's logits at every place of the chain. Nobody has looked for NaN among them.
        proposal: the chain.
        scorer: who knows the drafter's logits, at every place but perhaps the last.
        rng: the request's randomness.

    Raises:
        NotANumberError: a logit of the target, of the drafter, or of whoever wrote the chain is NaN.
    """
    rows, device, draft = rules.law.ops.rows, z.device, proposal.token_ids
    assert rows is not None, "the caller has asked `decided_on_device`"
    count = len(draft)
    ids = draft.ids if isinstance(draft, DeviceTokens) else sent(torch.tensor(draft, dtype=torch.int64), device)
    ids = ids.to(device, non_blocking=True)
    drafter = None if scorer is None else _drafter_rows(scorer, count, device)
    laws = rules.law.form_rows(
        rules.penalty.apply_rows(z, draft), None if drafter is None else rules.penalty.apply_rows(drafter, draft)
    )
    drawn = None
    if proposal.probs is not None and count:
        drawn = torch.stack([each for each in proposal.probs if each is not None]).to(device, non_blocking=True)
    # The drafter's own draws take the first uniform numbers, one for each token that counts.
    draws = count if isinstance(draft, DeviceTokens) and drawn is not None else 0
    given = rng.ahead(draws + count + 2)
    uniforms = sent(torch.tensor(given, dtype=torch.float64), device)
    length = None
    if isinstance(draft, DeviceTokens):
        length = _length(ids, sorted(rules.eos_token_ids))
        if draws:
            uniforms = uniforms.index_select(0, torch.arange(count + 2, device=device) + length)
    found = rows.verify(laws, ids, drawn, uniforms, length)
    counts = torch.full((1,), count, device=device) if length is None else length.view(1)
    flags = [_nan(each, device) for each in (z, drafter, proposal.written)]
    numbers = numbers_of(torch.cat([found, *flags, counts, ids]))
    accepted, token, used, nan_of_target, nan_of_drafter, nan_of_writer, counted = numbers[:7]
    if nan_of_target:
        raise NotANumberError.of_model(target.model.name)
    if nan_of_drafter or nan_of_writer:
        raise NotANumberError.of_model(
            scorer.reader.model.name if nan_of_drafter and scorer is not None else "the draft model"
        )
    known = _cut(proposal, numbers[7 : 7 + counted])
    path, whole = tuple(range(accepted)), accepted == counted
    ended = not rules.eos_token_ids.isdisjoint(known.token_ids[:accepted])
    nothing_behind = whole and (ended or not (scorer is None or scorer.scores(counted)))
    rng.skip((counted if draws else 0) + used - nothing_behind)
    if nothing_behind:
        return Decided(known, path, None)
    return Decided(known, path, None, token) if whole else Decided(known, path, token)


def numbers_of(verdict: Tensor) -> list[int]:
    """Return the numbers of a verdict: here the host waits for the device, once a round."""
    numbers: list[int] = verdict.tolist()
    return numbers


def _drafter_rows(scorer: Scorer, count: int, device: torch.device) -> Tensor:
    """Return the drafter's logits (K + 1, V). If the last row is not known, the one before takes its place."""
    known = [scorer.logits(place) for place in range(count)]
    known.append(scorer.logits(count) if scorer.scores(count) else known[-1])
    return torch.stack(known).to(device, non_blocking=True)


def _length(ids: Tensor, ends: Sequence[int]) -> Tensor:
    """Return how many tokens of a draft count, an int64 without dimensions: those up to the first that ends an answer.

    Those behind it were drawn without a look at it, so that to leave them out biases nothing.
    """
    places = torch.arange(1, ids.shape[0] + 1, device=ids.device)
    ended = torch.zeros_like(ids, dtype=torch.bool)
    for each in ends:
        ended = ended | (ids == each)
    return places.where(ended, ids.shape[0]).amin()


def _nan(logits: Tensor | None, device: torch.device) -> Tensor:
    """Return whether one of them is NaN, (1,) int64 on a device."""
    if logits is None:
        return torch.zeros(1, dtype=torch.int64, device=device)
    return logits.isnan().any().long().view(1).to(device, non_blocking=True)


def _cut(proposal: Proposal, token_ids: Sequence[int]) -> Proposal:
    """Return a proposal whose first tokens the host knows now, without the others."""
    if not isinstance(proposal.token_ids, DeviceTokens):
        return proposal
    probs = None if proposal.probs is None else proposal.probs[: len(token_ids)]
    return replace(proposal, token_ids=tuple(token_ids), probs=probs, written=None)
