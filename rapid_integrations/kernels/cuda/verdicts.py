"""Kernels: drafts are accepted or rejected, and the next token is drawn, for many requests at once.

`sampling.verification` and `sampling.randomness` define the result, and which uniform number decides what: an
impossible outcome takes none. A round is four launches, and the host reads three integers of it:

    _accept    how likely each prefix of the draft is to stand
    _left      what each law leaves over the drafter's distribution, by block
    _choose    how much of the draft stands, and which distribution the next token comes from
    _weigh     the sums of that distribution, by block
    _draw      the token at which its running sum exceeds the uniform number's share
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from rapid_integrations.kernels.cuda.launching import OPTIONS, where_it_lies
from rapid_integrations.sampling.ops import LEAST_SUM

BLOCK: Final = 4096  # tokens of a program
LAW, RESIDUAL, WITHOUT = 0, 1, 2  # what the next token is drawn from
_LEAST_SUM = tl.constexpr(LEAST_SUM)
_LAW, _RESIDUAL, _WITHOUT = tl.constexpr(LAW), tl.constexpr(RESIDUAL), tl.constexpr(WITHOUT)


# Drafts of every length are verified by the same binaries: specialised, each length would be compiled anew.
@triton.jit(do_not_specialize=["draft"])
def _accept(laws, proposed, tokens, stands, draft, width, DRAWN: tl.constexpr):
    round_ = tl.program_id(0).to(tl.int64)
    before = tl.full([], 1.0, tl.float64)
    tl.store(stands + round_ * (draft + 1), before)
    for position in range(0, draft):
        token = tl.load(tokens + round_ * draft + position)
        chance = tl.load(laws + (round_ * (draft + 1) + position) * width + token).to(tl.float64)
        if DRAWN:
            chance /= tl.load(proposed + (round_ * draft + position) * width + token).to(tl.float64)
            chance = tl.where(before > 0.0, before * chance, 0.0)
        chance = tl.minimum(chance, 1.0)
        if DRAWN:
            before = chance
        tl.store(stands + round_ * (draft + 1) + position + 1, chance)


@triton.jit(do_not_specialize=["draft"])
def _left(laws, proposed, stands, left, draft, width, blocks, BLOCK: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    round_, position = row // draft, row % draft
    factor = tl.load(stands + round_ * (draft + 1) + position).to(tl.float32)
    at = block * BLOCK + tl.arange(0, BLOCK)
    law = tl.load(laws + (round_ * (draft + 1) + position) * width + at, mask=at < width, other=0.0)
    own = tl.load(proposed + row * width + at, mask=at < width, other=0.0)
    tl.store(left + row * blocks + block, tl.sum(tl.maximum(law * factor - own, 0.0).to(tl.float64), 0))


@triton.jit
def _happens(uniforms, used, chance):
    """Return whether an event of this probability happens, and how many uniform numbers were used then."""
    share = tl.load(uniforms + used)
    return (share < chance) & (chance > 0.0), used + tl.where(chance > 0.0, 1, 0)


@triton.jit(do_not_specialize=["draft", "given"])
def _choose(
    stands,
    left,
    laws,
    tokens,
    uniforms,
    verdict,
    source,
    factors,
    lengths,
    draft,
    width,
    blocks,
    given,
    DRAWN: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    round_ = tl.program_id(0).to(tl.int64)
    counted = tl.load(lengths + round_).to(tl.int32)
    own = stands + round_ * (draft + 1)
    mine = uniforms + round_ * given
    used = tl.full([], 0, tl.int64)
    accepted = tl.full([], 0, tl.int64)
    kind = tl.full([], _LAW, tl.int64)
    factor = tl.full([], 1.0, tl.float64)
    going = tl.full([], 1, tl.int1)
    if DRAWN:  # from the longest prefix to the empty one
        for step in range(0, counted + 1):
            length = counted - step
            chance = tl.load(own + length)
            if going & (chance > 0.0):
                odds = chance
                total = tl.full([], 1.0, tl.float64)
                if length < counted:
                    b = tl.arange(0, BLOCKS)
                    row = (round_ * draft + length) * blocks
                    total = tl.sum(tl.load(left + row + b, mask=b < blocks, other=0.0), 0)
                    odds = tl.where(chance < 1.0, total / tl.maximum(total + 1.0 - chance, 1e-300), 1.0)
                ends, used = _happens(mine, used, odds)
                if ends:
                    accepted = length.to(tl.int64)
                    kind = tl.where((length < counted) & (total > 0.0), _RESIDUAL, _LAW).to(tl.int64)
                    factor = chance
                    going = tl.full([], 0, tl.int1)
    else:  # a point mass each: token by token, from the front
        for position in range(0, counted):
            if going:
                stays, used = _happens(mine, used, tl.load(own + position + 1))
                if stays:
                    accepted += 1
                else:
                    kind = tl.full([], _WITHOUT, tl.int64)
                    going = tl.full([], 0, tl.int1)
    tl.store(verdict + round_ * 3, accepted)
    tl.store(verdict + round_ * 3 + 2, used + 1)
    tl.store(source + round_, kind)
    tl.store(factors + round_, factor)


@triton.jit
def _weights(laws, proposed, tokens, verdict, source, factors, round_, at, inside, draft, width, DRAWN: tl.constexpr):
    """Return the numbers (float32) that the next token of a round is drawn in proportion to."""
    accepted = tl.load(verdict + round_ * 3)
    kind = tl.load(source + round_)
    law = tl.load(laws + (round_ * (draft + 1) + accepted) * width + at, mask=inside, other=0.0)
    if DRAWN:
        own = tl.load(
            proposed + (round_ * draft + tl.minimum(accepted, draft - 1)) * width + at,
            mask=inside & (at * 0 + kind == _RESIDUAL),
            other=0.0,
        )
        rest = tl.maximum(law * tl.load(factors + round_).to(tl.float32) - own, 0.0)
        law = tl.where(kind == _RESIDUAL, rest, law)
    else:
        token = tl.load(tokens + round_ * draft + tl.maximum(tl.minimum(accepted, draft - 1), 0))
        law = tl.where((kind == _WITHOUT) & (at == token), 0.0, law)
    return law


@triton.jit(do_not_specialize=["draft"])
def _weigh(
    laws,
    proposed,
    tokens,
    verdict,
    source,
    factors,
    weighed,
    draft,
    width,
    blocks,
    DRAWN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    round_, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    found = _weights(laws, proposed, tokens, verdict, source, factors, round_, at, at < width, draft, width, DRAWN)
    tl.store(weighed + round_ * blocks + block, tl.sum(found.to(tl.float64), 0))


@triton.jit(do_not_specialize=["draft", "given"])
def _draw(
    laws,
    proposed,
    tokens,
    uniforms,
    verdict,
    source,
    factors,
    weighed,
    draft,
    width,
    blocks,
    given,
    DRAWN: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    round_ = tl.program_id(0).to(tl.int64)
    b = tl.arange(0, BLOCKS)
    own = tl.load(weighed + round_ * blocks + b, mask=b < blocks, other=0.0)
    running = tl.cumsum(own, 0)
    whole = tl.sum(own, 0)
    wanted = tl.load(uniforms + round_ * given + tl.load(verdict + round_ * 3 + 2) - 1) * whole
    last = tl.max(tl.where(own > 0.0, b, 0), 0)
    block = tl.minimum(tl.sum((running <= wanted).to(tl.int32), 0), last)
    before = tl.sum(tl.where(b < block, own, 0.0), 0)
    at = block * BLOCK + tl.arange(0, BLOCK)
    found = _weights(laws, proposed, tokens, verdict, source, factors, round_, at, at < width, draft, width, DRAWN)
    found = found.to(tl.float64)
    within = before + tl.cumsum(found, 0)
    first = tl.min(tl.where((within > wanted) & (found > 0.0), at, width), 0)
    # Rounding can push the share up to the sum of the block. Then its last entry that is not zero is meant.
    ending = tl.max(tl.where(found > 0.0, at, 0), 0)
    chosen = tl.where(first < width, first, ending).to(tl.int64)
    accepted = tl.load(verdict + round_ * 3)
    if not DRAWN:
        # If nothing else remains of the law, the rejection was an accident of rounding.
        token = tl.load(tokens + round_ * draft + tl.maximum(tl.minimum(accepted, draft - 1), 0))
        chosen = tl.where((tl.load(source + round_) == _WITHOUT) & (whole < _LEAST_SUM), token, chosen)
    tl.store(verdict + round_ * 3 + 1, chosen)


@where_it_lies
def verify_rounds(
    laws: Tensor,
    tokens: Tensor,
    proposed: Tensor | None,
    uniforms: Tensor,
    lengths: Tensor | None = None,
    *,
    block: int = BLOCK,
) -> Tensor:
    """Return what becomes of G drafts of K tokens, without waiting for the device.

    Args:
        laws: (G, K + 1, V) float32, the law at each position and behind the last one.
        tokens: (G, K) int64, the drafts; K may be 0.
        proposed: (G, K, V) float32, what each token was drawn from; None for point masses.
        uniforms: (G, U) float64 in [0, 1), at least K + 2 for each round, in the order in which they are used.
        lengths: (G,) int64, how many tokens of each draft count; None: all.
        block: tokens of a program, a power of two.

    Returns:
        (G, 3) int64: how many tokens stand, the token behind them, and how many uniform numbers were used.
    """
    laws, tokens, uniforms = laws.contiguous(), tokens.contiguous(), uniforms.contiguous()
    rounds, positions, width = laws.shape
    draft, given = positions - 1, uniforms.shape[1]
    blocks = triton.cdiv(width, block)
    drawn = proposed is not None and draft > 0
    other = proposed.contiguous() if proposed is not None and draft else laws
    stands = laws.new_empty(rounds, draft + 1, dtype=torch.float64)
    left = laws.new_empty(rounds, max(draft, 1), blocks, dtype=torch.float64)
    verdict = torch.empty(rounds, 3, dtype=torch.int64, device=laws.device)
    source = torch.empty(rounds, dtype=torch.int64, device=laws.device)
    factors = laws.new_empty(rounds, dtype=torch.float64)
    lengths = torch.full((rounds,), draft, device=laws.device) if lengths is None else lengths
    weighed = laws.new_empty(rounds, blocks, dtype=torch.float64)
    last = {"BLOCKS": triton.next_power_of_2(blocks)}
    options = {"num_warps": 8, **OPTIONS}
    if not draft:
        tokens = verdict  # not read
    _accept[(rounds,)](laws, other, tokens, stands, draft, width, DRAWN=drawn, num_warps=1, **OPTIONS)
    if drawn:
        _left[(rounds * draft, blocks)](laws, other, stands, left, draft, width, blocks, BLOCK=block, **options)
    _choose[(rounds,)](
        stands,
        left,
        laws,
        tokens,
        uniforms,
        verdict,
        source,
        factors,
        lengths,
        draft,
        width,
        blocks,
        given,
        DRAWN=drawn,
        **last,
        num_warps=1,
        **OPTIONS,
    )
    chosen = (laws, other, tokens)
    _weigh[(rounds, blocks)](
        *chosen, verdict, source, factors, weighed, draft, width, blocks, DRAWN=drawn, BLOCK=block, **options
    )
    _draw[(rounds,)](
        *chosen,
        uniforms,
        verdict,
        source,
        factors,
        weighed,
        draft,
        width,
        blocks,
        given,
        DRAWN=drawn,
        **last,
        BLOCK=block,
        **options,
    )
    return verdict


def draw_rows(probs: Tensor, shares: Tensor, *, block: int = BLOCK) -> Tensor:
    """Return of each row the index at which its running sum exceeds a share of its total, (G,) int64.

    Args:
        probs: (G, V) float32, not negative.
        shares: (G,) float64 in [0, 1).
        block: tokens of a program, a power of two.
    """
    nothing = torch.empty(len(probs), 0, dtype=torch.int64, device=probs.device)
    return verify_rounds(probs[:, None], nothing, None, shares[:, None], block=block)[:, 1]
