"""Kernels: p_hat at many positions at once, with the strength of the transfer found on the device.

`sampling.augmented_target` and `sampling.adaptive_eta` define the result. Here a row of logits is split over programs,
and nothing waits for the host:

    _sums      maxima and sums of exponentials of each block, for p and q
    _moves     of each block the tokens that would move most, and what p and q have in common
    _pick      of each row the tokens that would move most
    _search    the line search for eta, in double precision
    _mix       maxima and sums of exponentials of the shifted logits
    _law       p_hat, and with the rule "restore" its sums, by which `_scale` divides
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapid_integrations.kernels.cuda.launching import OPTIONS, where_it_lies
from rapid_integrations.sampling.adaptive_eta import ETA_MOST

if TYPE_CHECKING:
    from rapid_integrations.config import Eta

BLOCK: Final = 4096  # tokens of a program
MOVED: Final = 64  # tokens that the line search sees one by one
_MOST, _SLOPE_LEFT, _CLOSE = tl.constexpr(ETA_MOST), tl.constexpr(0.01), tl.constexpr(1e-9)
_INDEX_BITS = tl.constexpr(0xFFFFFFFF)


@triton.jit
def _merged(bests, sums, row, blocks, temperature, BLOCKS: tl.constexpr):
    """Return the maximum of a row and its sum of exponentials, from those of its blocks."""
    b = tl.arange(0, BLOCKS)
    there = b < blocks
    own = tl.load(bests + row * blocks + b, mask=there, other=float("-inf"))
    best = tl.max(own, 0)
    added = tl.load(sums + row * blocks + b, mask=there, other=0.0)
    return best, tl.sum(tl.where(added > 0, added * tl.exp((own - best) / temperature), 0.0), 0)


@triton.jit
def _block_sums(x, inside, temperature):
    best = tl.max(x, 0)
    added = tl.where(inside & (x > float("-inf")), tl.exp((x - best) / temperature), 0.0)
    return best, tl.sum(added, 0)


@triton.jit
def _sums(z, d, z_bests, z_sums, d_bests, d_sums, width, blocks, temperature, BLOCK: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    place = row * blocks + block
    best, total = _block_sums(tl.load(z + row * width + at, mask=inside, other=float("-inf")), inside, temperature)
    tl.store(z_bests + place, best)
    tl.store(z_sums + place, total)
    best, total = _block_sums(tl.load(d + row * width + at, mask=inside, other=float("-inf")), inside, temperature)
    tl.store(d_bests + place, best)
    tl.store(d_sums + place, total)


@triton.jit
def _both(z, d, inside, z_best, z_sum, d_best, d_sum, temperature, tail_alpha, MASKED: tl.constexpr):
    """Return p, q, the direction and log p of some tokens."""
    shifted = (z - z_best) / temperature
    p = tl.where(inside, tl.exp(shifted) / z_sum, 0.0)
    q = tl.where(inside, tl.exp((d - d_best) / temperature) / d_sum, 0.0)
    direction = q - p
    if MASKED:
        direction = tl.where(q >= tail_alpha * (1.0 / d_sum), direction, 0.0)
    return p, q, direction, shifted - tl.log(z_sum)


@triton.jit
def _threshold(keys, MOVED: tl.constexpr):
    """Return the smallest of the `MOVED` largest keys, which differ; 0 if there are fewer that are not negative."""
    least = tl.max(keys, 0) * 0
    for bit in range(0, 62):  # the bits of a number up to 1, and those of an index
        raised = least | (tl.full([], 1, tl.int64) << (61 - bit))
        least = tl.where(tl.sum((keys >= raised).to(tl.int32), 0) >= MOVED, raised, least)
    return least


@triton.jit
def _moves(
    z,
    d,
    z_bests,
    z_sums,
    d_bests,
    d_sums,
    candidates,
    common,
    rest,
    width,
    blocks,
    temperature,
    tail_alpha,
    MASKED: tl.constexpr,
    MOVED: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    z_best, z_sum = _merged(z_bests, z_sums, row, blocks, temperature, BLOCKS)
    d_best, d_sum = _merged(d_bests, d_sums, row, blocks, temperature, BLOCKS)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    own_z = tl.load(z + row * width + at, mask=inside, other=float("-inf"))
    own_d = tl.load(d + row * width + at, mask=inside, other=float("-inf"))
    p, q, direction, _ = _both(own_z, own_d, inside, z_best, z_sum, d_best, d_sum, temperature, tail_alpha, MASKED)
    # The bits of numbers that are not negative have the order of the numbers. Of equal moves the first token is first.
    size = tl.abs(direction).to(tl.int32, bitcast=True).to(tl.int64)
    keys = tl.where(inside, (size << 32) | (at.to(tl.int64) ^ _INDEX_BITS), -1)
    taken = keys >= _threshold(keys, MOVED)
    place = (row * blocks + block) * MOVED + tl.cumsum(taken.to(tl.int32), 0) - 1
    tl.store(candidates + place, keys, mask=taken)
    wide = p.to(tl.float64)
    tl.store(rest + row * blocks + block, tl.sum(tl.where(taken, 0.0, wide), 0))
    tl.store(common + row * blocks + block, tl.sum(tl.minimum(wide, q.to(tl.float64)), 0))


@triton.jit
def _pick(
    z,
    z_bests,
    z_sums,
    candidates,
    picked,
    rest,
    rests,
    width,
    blocks,
    temperature,
    MOVED: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    z_best, z_sum = _merged(z_bests, z_sums, row, blocks, temperature, BLOCKS)
    b = tl.arange(0, BLOCKS)
    left = tl.sum(tl.load(rest + row * blocks + b, mask=b < blocks, other=0.0), 0)
    at = tl.arange(0, BLOCKS * MOVED)
    keys = tl.load(candidates + row * blocks * MOVED + at, mask=at < blocks * MOVED, other=-1)
    least = _threshold(keys, MOVED)
    taken = keys >= least
    tl.store(picked + row * MOVED + tl.cumsum(taken.to(tl.int32), 0) - 1, keys, mask=taken)
    lost = (keys >= 0) & (keys < least)
    logits = tl.load(z + row * width + ((keys & _INDEX_BITS) ^ _INDEX_BITS), mask=lost, other=float("-inf"))
    p = tl.where(lost, tl.exp((logits - z_best) / temperature) / z_sum, 0.0)
    tl.store(rests + row, left + tl.sum(p.to(tl.float64), 0))


@triton.jit
def _slope(p_hat_at, d, log_p, rest, wanted):
    """Return what the direction is worth under p_hat at this eta, less what is wanted; and its derivative."""
    raised = log_p + p_hat_at * d
    top = tl.maximum(tl.max(raised, 0), 0.0)
    weights = tl.exp(raised - top)
    whole = tl.sum(weights, 0) + rest * tl.exp(-top)  # tokens that do not move share one weight
    mean = tl.sum(weights * d, 0) / whole
    square = tl.sum(weights * d * d, 0) / whole
    return mean - wanted, square - mean * mean


@triton.jit
def _search(
    z,
    d,
    z_bests,
    z_sums,
    d_bests,
    d_sums,
    picked,
    common,
    rests,
    eta,
    width,
    blocks,
    temperature,
    tail_alpha,
    relevance,
    trust,
    MASKED: tl.constexpr,
    MOVED: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    z_best, z_sum = _merged(z_bests, z_sums, row, blocks, temperature, BLOCKS)
    d_best, d_sum = _merged(d_bests, d_sums, row, blocks, temperature, BLOCKS)
    b = tl.arange(0, BLOCKS)
    in_common = tl.sum(tl.load(common + row * blocks + b, mask=b < blocks, other=0.0), 0)
    left = tl.load(rests + row)
    best = tl.load(picked + row * MOVED + tl.arange(0, MOVED))
    found = best >= 0  # a small vocabulary has fewer tokens
    token = (best & _INDEX_BITS) ^ _INDEX_BITS
    own_z = tl.load(z + row * width + token, mask=found, other=float("-inf"))
    own_d = tl.load(d + row * width + token, mask=found, other=float("-inf"))
    p, q, move, log_p = _both(own_z, own_d, found, z_best, z_sum, d_best, d_sum, temperature, tail_alpha, MASKED)
    move = move.to(tl.float64)
    log_p = log_p.to(tl.float64)
    under_p = tl.sum(p.to(tl.float64) * move, 0)
    under_q = tl.sum(q.to(tl.float64) * move, 0)
    wanted = under_q + (under_p - under_q) * _SLOPE_LEFT
    low = under_p * 0.0
    high = low + _MOST
    value, rise = _slope(low, move, log_p, left, wanted)
    at_high, _ = _slope(high, move, log_p, left, wanted)
    searches = (value < 0.0) & (at_high >= 0.0)
    at = tl.where((value < 0.0) & (at_high < 0.0), high, low)
    while searches:
        value, rise = _slope(at, move, log_p, left, wanted)
        low = tl.where(value < 0.0, at, low)
        high = tl.where(value < 0.0, high, at)
        step = tl.where(rise > 0.0, value / tl.where(rise > 0.0, rise, 1.0), float("inf"))
        searches = tl.abs(step) >= _CLOSE
        newton = at - step
        within = (newton > low) & (newton < high)
        at = tl.where(searches, tl.where(within, newton, (low + high) / 2), at)
        searches = searches & (high - low > _CLOSE)
    tl.store(eta + row, relevance * (trust + (1.0 - trust) * in_common) * at)


@triton.jit
def _mix(
    z,
    d,
    z_bests,
    z_sums,
    d_bests,
    d_sums,
    eta,
    bests,
    sums,
    width,
    blocks,
    temperature,
    tail_alpha,
    MASKED: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    z_best, z_sum = _merged(z_bests, z_sums, row, blocks, temperature, BLOCKS)
    d_best, d_sum = _merged(d_bests, d_sums, row, blocks, temperature, BLOCKS)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    own_z = tl.load(z + row * width + at, mask=inside, other=float("-inf"))
    own_d = tl.load(d + row * width + at, mask=inside, other=float("-inf"))
    _, _, move, log_p = _both(own_z, own_d, inside, z_best, z_sum, d_best, d_sum, temperature, tail_alpha, MASKED)
    raised = log_p + tl.load(eta + row).to(tl.float32) * move
    best, total = _block_sums(tl.where(inside, raised, float("-inf")), inside, 1.0)
    tl.store(bests + row * blocks + block, best)
    tl.store(sums + row * blocks + block, total)


@triton.jit
def _law(
    z,
    d,
    z_bests,
    z_sums,
    d_bests,
    d_sums,
    eta,
    bests,
    sums,
    out,
    restored,
    width,
    blocks,
    temperature,
    tail_alpha,
    MASKED: tl.constexpr,
    RESTORES: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    z_best, z_sum = _merged(z_bests, z_sums, row, blocks, temperature, BLOCKS)
    d_best, d_sum = _merged(d_bests, d_sums, row, blocks, temperature, BLOCKS)
    best, total = _merged(bests, sums, row, blocks, 1.0, BLOCKS)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    own_z = tl.load(z + row * width + at, mask=inside, other=float("-inf"))
    own_d = tl.load(d + row * width + at, mask=inside, other=float("-inf"))
    p, _, move, log_p = _both(own_z, own_d, inside, z_best, z_sum, d_best, d_sum, temperature, tail_alpha, MASKED)
    raised = log_p + tl.load(eta + row).to(tl.float32) * move
    p_hat = tl.where(inside, tl.exp(raised - best) / total, 0.0)
    if RESTORES:
        p_hat = tl.where(p_hat < tail_alpha * (1.0 / total), p, p_hat)
        tl.store(restored + row * blocks + block, tl.sum(p_hat, 0))
    tl.store(out + row * width + at, p_hat, mask=inside)


@triton.jit
def _scale(out, restored, width, blocks, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b = tl.arange(0, BLOCKS)
    whole = tl.sum(tl.load(restored + row * blocks + b, mask=b < blocks, other=0.0), 0)
    at = block * BLOCK + tl.arange(0, BLOCK)
    place = out + row * width + at
    tl.store(place, tl.load(place, mask=at < width, other=0.0) / whole, mask=at < width)


@where_it_lies
def p_hat_rows(
    z: Tensor,
    drafter_logits: Tensor,
    temperature: float,
    *,
    eta: Eta,
    relevance: float = 1.0,
    trust: float = 0.0,
    tail_rule: Literal["mask", "restore"] = "mask",
    tail_alpha: float = 0.1,
    block: int = BLOCK,
) -> Tensor:
    """Return p_hat at N positions, (N, V) float32, without waiting for the device.

    Args:
        z: (N, V) float32, the target's logits after penalties.
        drafter_logits: (N, V) float32, the drafter's.
        temperature: at least 1e-30.
        eta, relevance, trust, tail_rule, tail_alpha: see `sampling.augmented_target`.
        block: tokens of a program, a power of two of at least 64.
    """
    z, drafter_logits = z.contiguous(), drafter_logits.contiguous()
    rows, width = z.shape
    blocks = triton.cdiv(width, block)
    grid, last = (rows, blocks), {"BLOCKS": triton.next_power_of_2(blocks)}
    partial = [z.new_empty(rows, blocks) for _ in range(4)]
    options = {"num_warps": 8, **OPTIONS}
    _sums[grid](z, drafter_logits, *partial, width, blocks, temperature, BLOCK=block, **options)
    masked = tail_rule == "mask"
    if isinstance(eta, str):
        strength = z.new_empty(rows, dtype=torch.float64)
        # A key is the size of a move and its token. There are fewer in a small vocabulary, and -1 is none.
        candidates = torch.full((rows, blocks, MOVED), -1, dtype=torch.int64, device=z.device)
        picked = torch.full((rows, MOVED), -1, dtype=torch.int64, device=z.device)
        common, rest = (z.new_empty(rows, blocks, dtype=torch.float64) for _ in range(2))
        rests = z.new_empty(rows, dtype=torch.float64)
        given = (z, drafter_logits, *partial)
        tail = (width, blocks, temperature, tail_alpha)
        _moves[grid](
            *given, candidates, common, rest, *tail, MASKED=masked, MOVED=MOVED, **last, BLOCK=block, **options
        )
        seen = (width, blocks, temperature)
        _pick[(rows,)](
            z, *partial[:2], candidates, picked, rest, rests, *seen, MOVED=MOVED, **last, num_warps=8, **OPTIONS
        )
        trusted = 1.0 if eta == "nearest" else trust
        _search[(rows,)](
            *given,
            picked,
            common,
            rests,
            strength,
            *tail,
            relevance,
            trusted,
            MASKED=masked,
            MOVED=MOVED,
            **last,
            num_warps=2,
            **OPTIONS,
        )
    else:
        strength = z.new_full((rows,), eta, dtype=torch.float64)
    bests, sums, restored = (z.new_empty(rows, blocks) for _ in range(3))
    out = torch.empty_like(z)
    given = (z, drafter_logits, *partial, strength, bests, sums)
    tail = (width, blocks, temperature, tail_alpha)
    _mix[grid](*given, *tail, MASKED=masked, **last, BLOCK=block, **options)
    restores = tail_rule == "restore"
    _law[grid](*given, out, restored, *tail, MASKED=masked, RESTORES=restores, **last, BLOCK=block, **options)
    if restores:
        _scale[grid](out, restored, width, blocks, **last, BLOCK=block, **options)
    return out
