"""Kernel: queries and keys are normalised and rotated, and keys and values are written to their caches."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from rapid_integrations.kernels.cuda.launching import OPTIONS, dtype_of
from rapid_integrations.kernels.cuda.norms import add_norm, normalised
from rapid_integrations.kernels.cuda.places import Places
from rapid_integrations.kernels.layers import Norm, Rope


@triton.jit
def _head_norm(
    x,
    inside,
    at,
    head,
    weight,
    bias,
    eps,
    offset,
    DIM: tl.constexpr,
    CENTRED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    OWN: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Return a head (D,) normalised, rounded as the operators round it. `at` says which of its numbers x has."""
    x = normalised(x, inside, DIM, eps, CENTRED)
    place = at + head * DIM if OWN else at
    if WEIGHT:
        x *= tl.load(weight + place, mask=inside, other=0.0).to(tl.float32) + offset
    if BIAS:
        x += tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    return x.to(DTYPE).to(tl.float32)


@triton.jit(do_not_specialize=["layer", "layers", "first_pair", "table_width"])  # see `_partial`
def _rotate(
    qkv,
    q_weight,
    q_bias,
    k_weight,
    k_bias,
    eps,
    offset,
    reader_of,
    positions,
    tails,
    ahead,
    variant,
    segment_count,
    first_segment,
    segments,
    tables,
    addresses,
    capacities,
    layer,
    layers,
    first_pair,
    table_width,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr,
    BEHIND: tl.constexpr,
    CENTRED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    OWN: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    reader = tl.load(reader_of + row)
    if reader >= 0:
        at = tl.arange(0, BLOCK)
        inside = at < DIM
        own = qkv + (row * (HEADS + 2 * KV_HEADS) + head) * DIM
        x = tl.load(own + at, mask=inside, other=0.0).to(tl.float32)
        is_query = head < HEADS
        if head < HEADS + KV_HEADS:
            if INTERLEAVED:
                partner = at ^ 1
                second = (at & 1) == 1
                pair = at // 2
            else:
                second = at >= PAIRS
                partner = tl.where(second, at - PAIRS, at + PAIRS)
                pair = tl.where(second, at - PAIRS, at)
            turns = at < 2 * PAIRS
            partner = tl.where(turns, partner, at)
            other = tl.load(own + partner, mask=inside, other=0.0).to(tl.float32)
            number = tl.where(is_query, head, head - HEADS)
            weight = q_weight if is_query else k_weight
            bias = q_bias if is_query else k_bias
            if NORM and not BEHIND:
                x = _head_norm(x, inside, at, number, weight, bias, eps, offset, DIM, CENTRED, WEIGHT, BIAS, OWN, DTYPE)
                # Within a head the partners are the same numbers in another order, so their norm is the same.
                other = _head_norm(
                    other, inside, partner, number, weight, bias, eps, offset, DIM, CENTRED, WEIGHT, BIAS, OWN, DTYPE
                )
            if PAIRS > 0:
                which = tables + 2 * tl.load(variant + reader)
                position = tl.load(positions + row) + tl.load(ahead + reader)
                place = position * table_width + first_pair + pair
                cosines = tl.load(which).to(tl.pointer_type(tl.float32))
                sines = tl.load(which + 1).to(tl.pointer_type(tl.float32))
                cos = tl.load(cosines + place, mask=turns, other=1.0)
                sin = tl.load(sines + place, mask=turns, other=0.0)
                x = x * cos + other * tl.where(second, sin, -sin)
            if NORM and BEHIND:
                x = x.to(DTYPE).to(tl.float32)
                x = _head_norm(x, inside, at, number, weight, bias, eps, offset, DIM, CENTRED, WEIGHT, BIAS, OWN, DTYPE)
        if is_query:
            tl.store(own + at, x.to(DTYPE), mask=inside)
        else:
            is_value = head >= HEADS + KV_HEADS
            kv_head = tl.where(is_value, head - HEADS - KV_HEADS, head - HEADS)
            last = tl.load(first_segment + reader) + tl.load(segment_count + reader) - 1
            slot = tl.load(segments + 3 * last + 2)
            base = tl.load(addresses + (slot * layers + layer) * 2 + is_value.to(tl.int64))
            place = (kv_head * tl.load(capacities + slot) + tl.load(tails + row)) * DIM
            tl.store(base.to(tl.pointer_type(DTYPE)) + place + at, x.to(DTYPE), mask=inside)


def rotate_and_write(
    qkv: Tensor,
    places: Places,
    layer: int,
    norms: tuple[Norm | None, Norm | None],
    rope: Rope,
    heads: int,
    kv_heads: int,
    pairs: int,
) -> None:
    """Normalise and rotate the queries in place, and write keys, treated alike, and values to the rows' caches.

    Args:
        qkv: (R, (H + 2 H_kv) D), contiguous. Keys stay as they are in it, unless their norm spans all heads.
        places: where the rows lie.
        layer: which of the caches' layers is written.
        norms: of queries and keys.
        rope: how heads are rotated.
        heads, kv_heads: H and H_kv.
        pairs: columns of the tables of cosines and sines.
    """
    width = heads + 2 * kv_heads
    dim = qkv.shape[1] // width
    if norms[0] is not None and norms[0].scope == "all heads":
        for norm, begin, count in zip(norms, (0, heads), (heads, kv_heads), strict=True):
            part = qkv[:, begin * dim : (begin + count) * dim]
            add_norm(part, None, 1.0, norm, part)
        norms = (None, None)
    query, key = norms if None not in norms else (None, None)
    parts = places.parts

    def held(norm: Norm | None, name: str) -> Any:
        found = None if norm is None else getattr(norm, name)
        return qkv if found is None else found

    _rotate[(places.rows, width)](
        qkv,
        held(query, "weight"),
        held(query, "bias"),
        held(key, "weight"),
        held(key, "bias"),
        0.0 if query is None else query.eps,
        0.0 if query is None else query.offset,
        parts.reader_of,
        parts.positions,
        parts.tails,
        parts.ahead,
        parts.variant,
        parts.segment_count,
        parts.first_segment,
        parts.segments,
        parts.tables,
        places.addresses,
        places.capacities,
        layer,
        places.addresses.shape[1],
        rope.first,
        pairs,
        PAIRS=rope.pairs,
        INTERLEAVED=rope.interleaved,
        NORM=query is not None,
        BEHIND=rope.norm_behind,
        CENTRED=query is not None and query.centred,
        WEIGHT=query is not None and query.weight is not None,
        BIAS=query is not None and query.bias is not None,
        OWN=query is not None and query.scope == "own head",
        HEADS=heads,
        KV_HEADS=kv_heads,
        DIM=dim,
        DTYPE=dtype_of(qkv),
        BLOCK=triton.next_power_of_2(dim),
        num_warps=1,
        **OPTIONS,
    )
