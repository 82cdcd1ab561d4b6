"""The law and the verification for all positions of a round at once, with uniform numbers that are passed in.

Nothing here asks for a number, so nothing makes the host wait for a GPU. The results are those of `Law.form`, `verify`
and `Randomness.draw`, and as many uniform numbers are used in the same order: a seed means the same with both.

R is K + 1: one row for each place of a chain of K draft tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.sampling.adaptive_eta import _CLOSE, _MOVED, _SLOPE_LEFT, ETA_MOST
from rapid_integrations.sampling.law import Law
from rapid_integrations.sampling.ops import LEAST_SUM

_STEPS = 40  # halving [0, `ETA_MOST`] so often leaves less than `_CLOSE`; Newton's steps need ten at most


@dataclass(frozen=True)
class RoundVerdict:
    """What became of a draft, as numbers on its device: each an int64 without dimensions.

    Attributes:
        accepted: how many of the first draft tokens stand.
        token: the token behind them: the correction, or the bonus. -1 if an accepted token ends the answer.
        used: how many uniform numbers were used.
        length: how many draft tokens counted: those up to the first that ends an answer.
    """

    accepted: Tensor
    token: Tensor
    used: Tensor
    length: Tensor


def serves(law: Law) -> bool:
    """Return whether `laws` and `verdict` compute this kind of law."""
    return law.kind in ("target", "augmented")


def laws(law: Law, z: Tensor, drafter_logits: Tensor | None) -> Tensor:
    """Return what `Law.form` gives for each row, without a mask.

    Args:
        law: of the kind "target" or "augmented".
        z: (R, V) target logits after penalties, float32.
        drafter_logits: (R, V) the drafter's; None for the kind "target".

    Returns:
        (R, V) float32.
    """
    if drafter_logits is None:
        return _point(z) if law.greedy else truncated(law, torch.softmax(_divided(law, z), dim=-1))
    logits, of_drafter = _divided(law, z), _divided(law, drafter_logits)
    p, q = torch.softmax(logits, dim=-1), torch.softmax(of_drafter, dim=-1)
    log_p = torch.log_softmax(logits, dim=-1)
    direction = q - p
    if law.tail_rule == "mask":
        direction = direction * (q >= law.tail_alpha * q.amax(-1, keepdim=True))
    strength: float | Tensor
    if isinstance(law.eta, str):
        trust = 1.0 if law.eta == "nearest" else law.trust
        in_common = torch.minimum(p, q).sum(-1, keepdim=True, dtype=torch.float64)
        chosen = law.relevance * (trust + (1.0 - trust) * in_common) * _eta(p, q, direction, log_p)
        strength = chosen.to(p.dtype)
    else:
        strength = law.eta
    p_hat = torch.softmax(log_p + strength * direction, dim=-1)
    if law.tail_rule == "restore":
        p_hat = torch.where(p_hat < law.tail_alpha * p_hat.amax(-1, keepdim=True), p, p_hat)
        p_hat = p_hat / p_hat.sum(-1, keepdim=True)
    return _point(p_hat) if law.greedy else truncated(law, p_hat)


def truncated(law: Law, probs: Tensor) -> Tensor:
    """Return rows (R, V) as `truncate` leaves each of them."""
    if 0 < law.top_k < probs.shape[-1]:
        least = probs.topk(law.top_k, dim=-1).values.narrow(-1, law.top_k - 1, 1)
        probs = _scaled(probs.where(probs >= least, 0.0))
    if law.top_p < 1.0:
        values, order = probs.sort(dim=-1, descending=True)
        stays = values.cumsum(-1) - values < law.top_p  # of the better ones; so the first always stays
        probs = _scaled(torch.zeros_like(probs).scatter(-1, order, values.where(stays, 0.0)))
    if law.min_p > 0.0:
        probs = _scaled(probs.where(probs >= law.min_p * probs.amax(-1, keepdim=True), 0.0))
    return probs


def draw(probs: Tensor, share: Tensor) -> Tensor:
    """Return the index at which the running sum of `probs` (V,) exceeds this share of its total; see `Ops.draw`."""
    running = probs.cumsum(-1, dtype=torch.float64)
    total = running.narrow(0, -1, 1)
    last = torch.searchsorted(running, total)
    return torch.searchsorted(running, share * total, right=True).minimum(last).squeeze(0)


def verdict(
    formed: Tensor, draft: Tensor, proposed: Tensor | None, uniforms: Tensor, ends: Sequence[int] = ()
) -> RoundVerdict:
    """Accept a prefix of a draft, and draw the token behind it, as `verify` and the decoding loop do.

    Args:
        formed: (K + 1, V), the laws.
        draft: (K,) int64; tokens behind the first that ends an answer do not count.
        proposed: (K, V), what each token was drawn from; None for point masses.
        uniforms: (at least K + 2,) float64 in [0, 1).
        ends: ids that end an answer.
    """
    count = draft.shape[0]
    places = torch.arange(count + 1, device=draft.device)
    ended = torch.zeros_like(draft, dtype=torch.bool)
    for each in ends:
        ended = ended | (draft == each)
    length = torch.cat([places.narrow(0, 1, count).where(ended, count), places.narrow(0, count, 1)]).amin()
    columns = draft.unsqueeze(1)
    likely = formed.narrow(0, 0, count).gather(1, columns).squeeze(1).double()  # (K,)
    if proposed is None:
        chances = torch.where(places < length, torch.cat([1.0 - likely.clamp(max=1.0), _one(likely)]), 1.0)
        # A token is rejected with this probability: the first that is ends the search, and the end of the draft does.
        keeps = torch.cat([likely.clamp(max=1.0), _one(likely)])
        tried = (keeps > 0.0) & (keeps < 1.0) & (places < length)
        before = tried.cumsum(0) - tried.long()
        shares = uniforms.index_select(0, before)
        stops = (places >= length) | (chances >= 1.0) | (tried & (shares >= keeps))
        accepted = places.where(stops, count).amin()
        used = tried.long().where(places <= accepted, 0).sum()
        rest = _without(formed.index_select(0, accepted.unsqueeze(0)), _at(draft, accepted))
    else:
        accepted, used, rest = _block(formed, columns, proposed, likely, uniforms, length, places)
    whole = accepted >= length
    ending = whole & (ended & (places.narrow(0, 0, count) < length)).any()
    probs = torch.where(whole, formed.index_select(0, accepted.unsqueeze(0)), rest).squeeze(0)
    token = draw(probs, uniforms.index_select(0, used.unsqueeze(0)))
    return RoundVerdict(accepted, torch.where(ending, -1, token), used + (~ending).long(), length)


def _block(
    formed: Tensor,
    columns: Tensor,
    proposed: Tensor,
    likely: Tensor,
    uniforms: Tensor,
    length: Tensor,
    places: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do block verification; return how many stand, how many uniform numbers that took, and the residual (1, V)."""
    count = columns.shape[0]
    ratios = likely / proposed.gather(1, columns).squeeze(1).double()
    stands = [_one(likely)]  # the probability that so many tokens stand, or more
    for place in range(count):
        stands.append((stands[-1] * ratios.narrow(0, place, 1)).clamp(max=1.0))
    accept = torch.cat(stands)  # (K + 1,)
    factor = accept.narrow(0, 0, count).to(formed.dtype).unsqueeze(1)
    residual = (formed.narrow(0, 0, count) * factor - proposed).clamp(min=0.0)  # (K, V)
    left = torch.cat([residual.sum(-1).double(), torch.zeros_like(_one(likely))])
    shorter = torch.where(accept < 1.0, left / (left + 1.0 - accept), 1.0)
    chances = torch.where(places == length, accept, torch.where((places < length) & (accept > 0.0), shorter, 0.0))
    tried = (chances > 0.0) & (chances < 1.0)
    later = tried.long().flip(0).cumsum(0).flip(0) - tried.long()  # the longest prefix is tried first
    hit = (chances >= 1.0) | (tried & (uniforms.index_select(0, later) < chances))
    accepted = places.where(hit, 0).amax()
    used = tried.long().where(places >= accepted, 0).sum()
    at = accepted.clamp(max=max(count - 1, 0)).unsqueeze(0)
    if not count:
        return accepted, used, formed
    rest, whole = residual.index_select(0, at), left.index_select(0, at)
    scaled = torch.where(whole >= LEAST_SUM, rest * (1.0 / whole).to(rest.dtype), rest)
    return accepted, used, torch.where(whole > 0.0, scaled, formed.index_select(0, at))


def _without(law: Tensor, token: Tensor) -> Tensor:
    """Return the law (1, V) given that the outcome is not `token`, or itself if nothing else remains."""
    rest = law.scatter(1, token.view(1, 1), 0.0)
    left = rest.sum(-1, keepdim=True)
    scaled = rest * (1.0 / left.double()).to(rest.dtype)
    return torch.where((left >= LEAST_SUM) & (law.gather(1, token.view(1, 1)) > 0), scaled, law)


def _at(draft: Tensor, place: Tensor) -> Tensor:
    if not draft.shape[0]:
        return torch.zeros_like(place)
    return draft.index_select(0, place.clamp(max=draft.shape[0] - 1).unsqueeze(0)).squeeze(0)


def _one(like: Tensor) -> Tensor:
    return torch.ones(1, dtype=like.dtype, device=like.device)


def _point(scores: Tensor) -> Tensor:
    return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)


def _scaled(probs: Tensor) -> Tensor:
    return probs / probs.sum(-1, keepdim=True)


def _divided(law: Law, logits: Tensor) -> Tensor:
    temperature = law._temperature
    return logits if temperature == 1.0 else (logits - logits.amax(-1, keepdim=True)) / temperature


def _eta(p: Tensor, q: Tensor, direction: Tensor, log_p: Tensor) -> Tensor:
    """Return eta* of each row, (R, 1) float64: the search of `adaptive_eta` on all rows, a fixed number of steps."""
    moved = direction.abs().topk(min(_MOVED, direction.shape[-1]), dim=-1).indices
    some_p, some_q, d, log = (each.gather(-1, moved).double() for each in (p, q, direction, log_p))
    rest = p.scatter(-1, moved, 0.0).sum(-1, keepdim=True, dtype=torch.float64)
    under_p, under_q = (some_p * d).sum(-1, keepdim=True), (some_q * d).sum(-1, keepdim=True)
    wanted = under_q + _SLOPE_LEFT * (under_p - under_q)

    def slope(eta: Tensor) -> tuple[Tensor, Tensor]:
        raised = log + eta * d
        top = raised.amax(-1, keepdim=True).clamp(min=0.0)
        weights = (raised - top).exp()
        whole = weights.sum(-1, keepdim=True) + rest * (-top).exp()
        mean = (weights * d).sum(-1, keepdim=True) / whole
        return mean - wanted, (weights * d * d).sum(-1, keepdim=True) / whole - mean * mean

    low, high = torch.zeros_like(rest), torch.full_like(rest, ETA_MOST)
    at_low, at_high = ~(slope(low)[0] < 0.0), slope(high)[0] < 0.0
    eta, done = low, at_low | at_high
    for _ in range(_STEPS):
        value, rise = slope(eta)
        below = value < 0.0
        low, high = torch.where(below & ~done, eta, low), torch.where(below | done, high, eta)
        step = torch.where(rise > 0.0, value / rise, torch.inf)
        done = done | (step.abs() < _CLOSE)
        new = eta - step
        inside = (low < new) & (new < high)
        eta = torch.where(done, eta, torch.where(inside, new, (low + high) / 2))
        done = done | (high - low <= _CLOSE)
    return torch.where(at_low, 0.0, torch.where(at_high, ETA_MOST, eta))
