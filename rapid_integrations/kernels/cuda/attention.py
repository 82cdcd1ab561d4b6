"""Kernels: attention of ragged rows of several readers over the segments of their caches, split over keys.

`_partial` attends to one chunk of a reader's keys and leaves a result with the logarithm of its sum of exponentials.
`_combine` adds the chunks of a row, in their order. Chunks, and the tiles within them, begin at absolute positions,
whoever else takes part and wherever segments end. A tile that a row does not see changes nothing of it: it multiplies
by one and adds zero. So a row has the same bits alone and in company.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rapid_integrations.kernels.cuda.availability import interpreted
from rapid_integrations.kernels.cuda.launching import OPTIONS, dtype_of
from rapid_integrations.kernels.cuda.places import FAR_CHUNK, NEAR, NEAR_CHUNK, Places
from rapid_integrations.kernels.layers import AttentionKind

TILE_KEYS = 64  # at most; as segments begin at multiples of it, each tile lies in one
_TILE_BYTES = 16 << 10  # of the keys of a tile, and of its values: four of these fit into the memory that a block has
_TWO_STAGES = 512  # bytes of a row; beside the queries of wider ones, there is no room for a second tile
_LOG2_E = tl.constexpr(1.4426950408889634)
_NEAR, _NEAR_CHUNK, _FAR_CHUNK = tl.constexpr(NEAR), tl.constexpr(NEAR_CHUNK), tl.constexpr(FAR_CHUNK)
_CHUNKS_AT_ONCE = 16
_NEAR_CHUNKS = tl.constexpr(NEAR // NEAR_CHUNK)


@triton.jit
def _chunk_of(position):
    """Return the number of the chunk in which the key at a position lies."""
    return tl.where(position < _NEAR, position // _NEAR_CHUNK, (position - _NEAR) // _FAR_CHUNK + _NEAR_CHUNKS)


@triton.jit
def _first_seen(past, WINDOW: tl.constexpr, CHUNK: tl.constexpr):
    """Return the position of the first key that any new row behind `past` sees."""
    first = past * 0
    if WINDOW > 0:
        first = tl.maximum(first, past + 1 - WINDOW)
    if CHUNK > 0:
        first = tl.maximum(first, past // CHUNK * CHUNK)
    return first


# Numbers that differ between launches of one model are not specialised on: each value would be compiled anew.
@triton.jit(do_not_specialize=["layer", "layers", "chunks"])
def _partial(
    qkv,
    mixed,
    log_sums,
    first_row,
    counts,
    pasts,
    positions,
    ancestors,
    segment_count,
    first_segment,
    segments,
    work,
    addresses,
    capacities,
    layer,
    layers,
    chunks,
    scale,
    softcap,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    CAPPED: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    READERS: tl.constexpr,
    DTYPE: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    kv_head = tl.program_id(1)
    GROUP: tl.constexpr = HEADS // KV_HEADS
    OPERAND: tl.constexpr = tl.float32 if WIDE else DTYPE
    whole = tl.load(work + READERS).to(tl.int32)
    for item in range(tl.program_id(0), whole, tl.num_programs(0)):
        before = tl.load(work + tl.arange(0, READERS))  # of readers that are not there: all of the work
        reader = tl.sum((before <= item).to(tl.int32), 0) - 1
        count = tl.load(counts + reader).to(tl.int32)
        past = tl.load(pasts + reader).to(tl.int32)
        first = tl.load(first_row + reader).to(tl.int32)
        tiles = tl.cdiv(count * GROUP, BLOCK_M)
        local = item - tl.load(work + reader).to(tl.int32)
        chunk = local // tiles
        far = (chunk - _NEAR_CHUNKS) * _FAR_CHUNK + _NEAR
        begin = tl.where(chunk < _NEAR_CHUNKS, chunk * _NEAR_CHUNK, far)
        end = begin + tl.where(chunk < _NEAR_CHUNKS, _NEAR_CHUNK, _FAR_CHUNK)
        low = tl.maximum(begin, _first_seen(past, WINDOW, CHUNK) // BLOCK_N * BLOCK_N)
        high = tl.minimum(end, past + count)
        if low < high:
            m = (local % tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
            valid = m < count * GROUP
            row = first + m // GROUP
            head = kv_head * GROUP + m % GROUP
            position = tl.load(positions + row, mask=valid, other=0).to(tl.int32)
            seen = tl.load(ancestors + row, mask=valid, other=0)
            d = tl.arange(0, BLOCK_D)
            of_query = (row * (HEADS + 2 * KV_HEADS) + head).to(tl.int64)[:, None] * DIM + d[None, :]
            query = tl.load(qkv + of_query, mask=valid[:, None] & (d < DIM)[None, :], other=0.0).to(OPERAND)
            best = tl.full([BLOCK_M], float("-inf"), tl.float32)
            total = tl.zeros([BLOCK_M], tl.float32)
            out = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
            own = segments + 3 * tl.load(first_segment + reader)
            for segment in range(0, tl.load(segment_count + reader).to(tl.int32)):
                seg_begin = tl.load(own + 3 * segment).to(tl.int32)
                start = tl.maximum(low, seg_begin)
                stop = tl.minimum(high, tl.load(own + 3 * segment + 1).to(tl.int32))
                slot = tl.load(own + 3 * segment + 2)
                skipped = kv_head * tl.load(capacities + slot) * DIM
                place = addresses + (slot * layers + layer) * 2
                # Said, because nobody can see it of an address from memory: without it, single numbers are read.
                keys = tl.multiple_of(tl.load(place).to(tl.pointer_type(DTYPE)), 16) + skipped
                values = tl.multiple_of(tl.load(place + 1).to(tl.pointer_type(DTYPE)), 16) + skipped
                for tile in range(start, stop, BLOCK_N):
                    n = tile + tl.arange(0, BLOCK_N)
                    there = n < stop
                    of_key = (n - seg_begin).to(tl.int64) * DIM
                    key = tl.load(
                        keys + of_key[None, :] + d[:, None], mask=there[None, :] & (d < DIM)[:, None], other=0.0
                    )
                    scores = tl.dot(query, key.to(OPERAND), input_precision="ieee") * scale
                    if CAPPED:  # tanh(x) = 2 sigmoid(2 x) - 1
                        scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)
                    new = n - past
                    is_new = there & (new >= 0)
                    bit = tl.where(is_new, new, 0).to(tl.int64)
                    visible = valid[:, None] & there[None, :]
                    visible = visible & ((new < 0)[None, :] | (((seen[:, None] >> bit[None, :]) & 1) == 1))
                    if WINDOW > 0 or CHUNK > 0:
                        known = tl.load(positions + first + new, mask=is_new, other=0).to(tl.int32)
                        key_position = tl.where(is_new, known, n)
                        if WINDOW > 0:
                            visible = visible & (key_position[None, :] > position[:, None] - WINDOW)
                        if CHUNK > 0:
                            visible = visible & (key_position[None, :] >= (position // CHUNK * CHUNK)[:, None])
                    scores = tl.where(visible, scores * _LOG2_E, float("-inf"))
                    higher = tl.maximum(best, tl.max(scores, 1))
                    # A row that has seen nothing yet has no best score: it would be subtracted from itself.
                    known_best = tl.where(higher == float("-inf"), 0.0, higher)
                    weights = tl.exp2(scores - known_best[:, None])
                    shrunk = tl.exp2(best - known_best)
                    total = total * shrunk + tl.sum(weights, 1)
                    value = tl.load(
                        values + of_key[:, None] + d[None, :], mask=there[:, None] & (d < DIM)[None, :], other=0.0
                    )
                    rounded = weights.to(DTYPE).to(OPERAND)
                    out = tl.dot(rounded, value.to(OPERAND), out * shrunk[:, None], input_precision="ieee")
                    best = higher
            saw = total > 0.0
            by_row = ((row * HEADS + head) * chunks + chunk).to(tl.int64)
            tl.store(log_sums + by_row, tl.where(saw, best + tl.log2(total), float("-inf")), mask=valid)
            result = out / tl.where(saw, total, 1.0)[:, None]
            tl.store(mixed + by_row[:, None] * DIM + d[None, :], result, mask=valid[:, None] & (d < DIM)[None, :])


@triton.jit(do_not_specialize=["chunks"])
def _combine(
    mixed,
    log_sums,
    out,
    sinks,
    reader_of,
    counts,
    pasts,
    chunks,
    WINDOW: tl.constexpr,
    CHUNK: tl.constexpr,
    SINKS: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    reader = tl.load(reader_of + row)
    d = tl.arange(0, BLOCK_D)
    place = out + (row * HEADS + head) * DIM + d
    if reader < 0:
        tl.store(place, tl.zeros([BLOCK_D], out.dtype.element_ty), mask=d < DIM)
    else:
        past = tl.load(pasts + reader).to(tl.int32)
        begin = _chunk_of(_first_seen(past, WINDOW, CHUNK))
        end = _chunk_of(past + tl.load(counts + reader).to(tl.int32) - 1) + 1
        by_row = (row * HEADS + head) * chunks
        c = tl.arange(0, BLOCK_C)
        start = begin // BLOCK_C * BLOCK_C  # sums are formed of the same chunks, however many of them are there
        best = tl.full([], float("-inf"), tl.float32)
        if SINKS:
            sink = tl.load(sinks + head) * _LOG2_E
            best = tl.maximum(best, sink)
        for group in range(start, end, BLOCK_C):
            there = (group + c >= begin) & (group + c < end)
            found = tl.load(log_sums + by_row + group + c, mask=there, other=float("-inf"))
            best = tl.maximum(best, tl.max(found, 0))
        total = tl.zeros([], tl.float32)
        if SINKS:
            total += tl.exp2(sink - best)
        result = tl.zeros([BLOCK_D], tl.float32)
        for group in range(start, end, BLOCK_C):
            there = (group + c >= begin) & (group + c < end)
            found = tl.load(log_sums + by_row + group + c, mask=there, other=float("-inf"))
            weights = tl.exp2(found - best)
            parts = tl.load(
                mixed + (by_row + group + c)[:, None] * DIM + d[None, :],
                mask=there[:, None] & (d < DIM)[None, :],
                other=0.0,
            )
            total += tl.sum(weights, 0)
            result += tl.sum(parts * weights[:, None], 0)
        tl.store(place, (result / total).to(out.dtype.element_ty), mask=d < DIM)


def attend(
    qkv: Tensor,
    places: Places,
    layer: int,
    scale: float,
    window: int | None,
    kind: AttentionKind,
    heads: int,
    kv_heads: int,
    mixed: Tensor,
    log_sums: Tensor,
    out: Tensor,
    *,
    tile_rows: int,
    programs: int,
) -> Tensor:
    """Attend with every row's queries to all keys of its reader that it sees; return `out`.

    Args:
        qkv: (R, (H + 2 H_kv) D), contiguous; only queries are read.
        places: where the rows lie.
        layer: which of the caches' layers is read.
        scale: of the scores.
        window: keys that a query sees, its own included; None: all.
        kind: what else the attention does.
        heads, kv_heads: H and H_kv.
        mixed, log_sums: (R, H, chunks, D) and (R, H, chunks) float32, for results of chunks.
        out: (R, H D); rows that are not used become 0.
        tile_rows: rows of queries of a program; the same for every step of a model, as bits depend on it.
        programs: how many share the work of a key/value head; no bits depend on it.
    """
    parts = places.parts
    dim = qkv.shape[1] // (heads + 2 * kv_heads)
    width = max(16, triton.next_power_of_2(dim))
    row_bytes = width * qkv.element_size()
    chunks = log_sums.shape[2]
    sight = {"WINDOW": window or 0, "CHUNK": kind.chunk or 0}
    _partial[(programs, kv_heads)](
        qkv,
        mixed,
        log_sums,
        parts.first,
        parts.count,
        parts.past,
        parts.positions,
        parts.ancestors,
        parts.segment_count,
        parts.first_segment,
        parts.segments,
        parts.work,
        places.addresses,
        places.capacities,
        layer,
        places.addresses.shape[1],
        chunks,
        scale,
        kind.softcap or 0.0,
        **sight,
        CAPPED=kind.softcap is not None,
        HEADS=heads,
        KV_HEADS=kv_heads,
        DIM=dim,
        READERS=places.rows,
        DTYPE=dtype_of(qkv),
        WIDE=interpreted(),  # the interpreter multiplies no bfloat16; products of float32 are the same
        BLOCK_M=tile_rows,
        BLOCK_N=min(TILE_KEYS, _TILE_BYTES // row_bytes),
        BLOCK_D=width,
        num_warps=8,
        num_stages=2 if row_bytes <= _TWO_STAGES else 1,  # tiles that are fetched while another one is computed with
        **OPTIONS,
    )
    _combine[(places.rows, heads)](
        mixed,
        log_sums,
        out,
        qkv if kind.sinks is None else kind.sinks,
        parts.reader_of,
        parts.count,
        parts.past,
        chunks,
        **sight,
        SINKS=kind.sinks is not None,
        HEADS=heads,
        DIM=dim,
        BLOCK_C=_CHUNKS_AT_ONCE,
        BLOCK_D=triton.next_power_of_2(dim),
        num_warps=4,
        **OPTIONS,
    )
    return out
