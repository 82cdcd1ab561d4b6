"""The law and the verification for all positions of a round at once, on the device where the logits lie.

Nothing here asks for a number, so nothing makes the host wait for a GPU. The results are those of `Law.form`, `verify`
and `Randomness.draw`, and as many uniform numbers are used in the same order: a seed means the same with both.

R is K + 1: one row for each place of a chain of K draft tokens.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from rapid_integrations.sampling.adaptive_eta import _CLOSE, _MOVED, _SLOPE_LEFT, ETA_MOST
from rapid_integrations.sampling.ops import LEAST_SUM, Shift

_STEPS = 40  # halving [0, `ETA_MOST`] so often leaves less than `_CLOSE`; Newton's steps need ten at most


class TorchRows:
    """`RowOps` in torch, on any device that has numbers in double precision; see there for each operation."""

    def p_hat(self, z: Tensor, drafter_logits: Tensor, temperature: float, **shift: Unpack[Shift]) -> Tensor:
        """Return p_hat (R, V)."""
        logits, of_drafter = divided(z, temperature), divided(drafter_logits, temperature)
        p, q = torch.softmax(logits, dim=-1), torch.softmax(of_drafter, dim=-1)
        log_p = torch.log_softmax(logits, dim=-1)
        direction = q - p
        if shift["tail_rule"] == "mask":
            direction = direction * (q >= shift["tail_alpha"] * q.amax(-1, keepdim=True))
        strength: float | Tensor
        if isinstance(shift["eta"], str):
            trust = 1.0 if shift["eta"] == "nearest" else shift["trust"]
            in_common = torch.minimum(p, q).sum(-1, keepdim=True, dtype=torch.float64)
            chosen = shift["relevance"] * (trust + (1.0 - trust) * in_common) * _eta(p, q, direction, log_p)
            strength = chosen.to(p.dtype)
        else:
            strength = shift["eta"]
        p_hat = torch.softmax(log_p + strength * direction, dim=-1)
        if shift["tail_rule"] == "restore":
            p_hat = torch.where(p_hat < shift["tail_alpha"] * p_hat.amax(-1, keepdim=True), p, p_hat)
            p_hat = p_hat / p_hat.sum(-1, keepdim=True)
        return p_hat

    def draw(self, probs: Tensor, share: Tensor) -> Tensor:
        """Return the index at which the running sum of `probs` (V,) exceeds this share of its total."""
        running = probs.cumsum(-1, dtype=torch.float64)
        total = running.narrow(0, -1, 1)
        # A row of NaN has no last entry; an index behind it would end the process's use of a GPU.
        last = torch.searchsorted(running, total).clamp(max=probs.shape[0] - 1)
        return torch.searchsorted(running, share * total, right=True).minimum(last).squeeze(0)

    def verify(
        self, laws: Tensor, draft: Tensor, proposed: Tensor | None, uniforms: Tensor, length: Tensor | None = None
    ) -> Tensor:
        """Return how many tokens of a draft stand, the token behind them, and how many uniform numbers were used."""
        count = draft.shape[0]
        places = torch.arange(count + 1, device=draft.device)
        length = places.narrow(0, count, 1).squeeze(0) if length is None else length
        columns = draft.unsqueeze(1)
        likely = laws.narrow(0, 0, count).gather(1, columns).squeeze(1).double()  # (K,)
        if proposed is None:
            # A token is rejected unless it stands: the first that is ends the search, and the end of the draft does.
            keeps = torch.cat([likely.clamp(max=1.0), _one(likely)])
            tried = (keeps > 0.0) & (places < length)
            before = tried.cumsum(0) - tried.long()
            shares = uniforms.index_select(0, before)
            stops = (places >= length) | (keeps <= 0.0) | (tried & (shares >= keeps))
            accepted = places.where(stops, count).amin()
            used = tried.long().where(places <= accepted, 0).sum()
            rest = _without(laws.index_select(0, accepted.unsqueeze(0)), _at(draft, accepted))
        else:
            accepted, used, rest = _block(laws, columns, proposed, likely, uniforms, length, places)
        probs = torch.where(accepted >= length, laws.index_select(0, accepted.unsqueeze(0)), rest).squeeze(0)
        token = self.draw(probs, uniforms.index_select(0, used.unsqueeze(0)))
        return torch.stack([accepted, token, used + 1])


def softmax_rows(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(logits / temperature) of rows (R, V)."""
    return torch.softmax(divided(logits, temperature), dim=-1)


def truncate_rows(probs: Tensor, *, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Return rows (R, V) as `truncate` leaves each of them."""
    if 0 < top_k < probs.shape[-1]:
        least = probs.topk(top_k, dim=-1).values.narrow(-1, top_k - 1, 1)
        probs = _scaled(probs.where(probs >= least, 0.0))
    if top_p < 1.0:
        values, order = probs.sort(dim=-1, descending=True)
        stays = values.cumsum(-1) - values < top_p  # of the better ones; so the first always stays
        probs = _scaled(torch.zeros_like(probs).scatter(-1, order, values.where(stays, 0.0)))
    if min_p > 0.0:
        probs = _scaled(probs.where(probs >= min_p * probs.amax(-1, keepdim=True), 0.0))
    return probs


def points(scores: Tensor) -> Tensor:
    """Return rows (R, V) that are 1 at the best entry of each row, and 0 elsewhere."""
    return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)


def divided(logits: Tensor, temperature: float) -> Tensor:
    """Return rows of logits (R, V) / temperature, up to a constant that softmax does not see."""
    return logits if temperature == 1.0 else (logits - logits.amax(-1, keepdim=True)) / temperature


def _block(
    laws: Tensor,
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
    factor = accept.narrow(0, 0, count).to(laws.dtype).unsqueeze(1)
    residual = (laws.narrow(0, 0, count) * factor - proposed).clamp(min=0.0)  # (K, V)
    left = torch.cat([residual.sum(-1).double(), torch.zeros_like(_one(likely))])
    shorter = torch.where(accept < 1.0, left / (left + 1.0 - accept), 1.0)
    chances = torch.where(places == length, accept, torch.where((places < length) & (accept > 0.0), shorter, 0.0))
    tried = chances > 0.0
    later = tried.long().flip(0).cumsum(0).flip(0) - tried.long()  # the longest prefix is tried first
    hit = tried & (uniforms.index_select(0, later) < chances)
    accepted = places.where(hit, 0).amax()
    used = tried.long().where(places >= accepted, 0).sum()
    at = accepted.clamp(max=max(count - 1, 0)).unsqueeze(0)
    if not count:
        return accepted, used, laws
    rest, whole = residual.index_select(0, at), left.index_select(0, at)
    scaled = torch.where(whole >= LEAST_SUM, rest * (1.0 / whole).to(rest.dtype), rest)
    return accepted, used, torch.where(whole > 0.0, scaled, laws.index_select(0, at))


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


def _scaled(probs: Tensor) -> Tensor:
    return probs / probs.sum(-1, keepdim=True)


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
