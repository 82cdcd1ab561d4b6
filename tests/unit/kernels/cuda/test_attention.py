"""Attention of several readers' rows over segments, against sums one by one in float64."""

import pytest
import torch

from rapid_integrations.kernels.cuda import places as places_module
from rapid_integrations.kernels.cuda.attention import attend
from rapid_integrations.kernels.cuda.places import MAX_ROWS, chunks_of
from rapid_integrations.kernels.layers import PLAIN, AttentionKind
from tests.unit.kernels.cuda.places_of import DIM, HEADS, KV_HEADS, cache_of, drawn, places_for, rows

SCALE = 0.3


def written(reader, seed, dtype=torch.float32):
    """Write the reader's new rows of layer 1 to its cache, as the kernel before the attention does."""
    heads, dim = reader.cache.tail(0).layer(0)[0].shape[1::2]
    keys, values = (drawn(1, heads, reader.count, dim, seed=seed + i, dtype=dtype) for i in (50, 51))
    reader.cache.write(1, keys, values)
    return reader


def expected_of(query, reader, row, window=None, kind=PLAIN, kv_heads=KV_HEADS):
    """Return (H, D) in float64: each head looks at one key after another."""
    cache, past = reader.cache, reader.cache.length
    keys, values = (
        torch.cat([segment[part] for segment in rows_of(cache, reader.count)], dim=2)[0].double() for part in (0, 1)
    )
    depth = reader.depths
    position = past + depth[row]
    first = 0 if window is None else position + 1 - window
    if kind.chunk is not None:
        first = max(first, position // kind.chunk * kind.chunk)
    ancestors, at = set(), row
    while at >= 0:
        ancestors.add(at)
        at = at - 1 if reader.parents is None else reader.parents[at]
    seen = [key for key in range(past) if key >= first]
    seen += [past + new for new in sorted(ancestors) if past + depth[new] >= first]
    group = len(query) // kv_heads
    out = []
    for head, own in enumerate(query.double()):
        scores = keys[head // group, seen] @ own * SCALE
        if kind.softcap is not None:
            scores = kind.softcap * torch.tanh(scores / kind.softcap)
        weights = scores.exp()
        whole = weights.sum() + (0 if kind.sinks is None else kind.sinks[head].double().exp())
        out.append(weights @ values[head // group, seen] / whole)
    return torch.stack(out)


def rows_of(cache, new):
    shared = [segment.rows(1) for segment in cache.shared]
    end = cache.length + new - cache.tail_begin
    return [*shared, tuple(buffer[:, :, :end] for buffer in cache.tail(0).layer(1))]


def attended(readers, qkv, window=None, kind=PLAIN, heads=HEADS, kv_heads=KV_HEADS, programs=2, tile_rows=16):
    dim = qkv.shape[1] // (heads + 2 * kv_heads)
    places = places_for(readers, group=heads // kv_heads, dim=dim, kv_heads=kv_heads, tile_rows=tile_rows)
    chunks = chunks_of(places.longest) + 1
    mixed = torch.full((MAX_ROWS, heads, chunks, dim), float("nan"))
    log_sums = torch.full((MAX_ROWS, heads, chunks), float("nan"))
    out = torch.full((MAX_ROWS, heads * dim), float("nan"), dtype=qkv.dtype)
    arguments = (qkv, places, 1, SCALE, window, kind, heads, kv_heads, mixed, log_sums, out)
    return attend(*arguments, tile_rows=tile_rows, programs=programs)


def check(readers, window=None, kind=PLAIN, heads=HEADS, kv_heads=KV_HEADS, dim=DIM):
    for seed, reader in enumerate(readers):
        written(reader, seed)
    qkv = drawn(MAX_ROWS, (heads + 2 * kv_heads) * dim, seed=77)
    out = attended(readers, qkv, window, kind, heads, kv_heads)
    at = 0
    for reader in readers:
        for row in range(reader.count):
            query = qkv[at].view(-1, dim)[:heads]
            expected = expected_of(query, reader, row, window, kind, kv_heads)
            torch.testing.assert_close(out[at].view(heads, dim).double(), expected, atol=1e-5, rtol=1e-5)
            at += 1
    assert (out[at:] == 0).all()


SIGHTS = {
    "all": {},
    "window 1": {"window": 1},
    "window 3": {"window": 3},
    "window 100": {"window": 100},
    "window 300": {"window": 300},
    "chunk": {"kind": AttentionKind(chunk=96)},
    "softcap": {"kind": AttentionKind(softcap=1.5)},
    "sinks": {"kind": AttentionKind(sinks=drawn(HEADS, seed=3))},
    "everything": {"window": 200, "kind": AttentionKind(chunk=400, softcap=2.0, sinks=drawn(HEADS, seed=3))},
}


@pytest.mark.parametrize("sight", SIGHTS)
def test_several_readers(sight):
    readers = [
        rows(1, cache_of(64, seed=1)),
        rows(5, cache_of(700, seed=2, shared=True)),
        rows(7, cache_of(300, seed=3), (-1, 0, 0, 1, 1, 2, 5)),
        rows(6, cache_of(3, seed=4)),  # two tiles of queries
    ]
    check(readers, **SIGHTS[sight])


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 16), (14, 2, 8), (5, 1, 96), (3, 3, 33)])
def test_head_shapes(heads, kv_heads, dim):
    readers = [
        rows(2, cache_of(290, seed=1, kv_heads=kv_heads, dim=dim)),
        rows(3, cache_of(5, seed=2, kv_heads=kv_heads, dim=dim)),
    ]
    check(readers, heads=heads, kv_heads=kv_heads, dim=dim)


def test_a_shared_beginning_is_read_where_it_lies():
    document = cache_of(1000, 1100)
    readers = [rows(2, document.fork(length, 1200)) for length in (1000, 999, 700)]
    assert all(reader.cache.shared[0].buffers is document.segments[0].buffers for reader in readers)
    check(readers)


@pytest.mark.parametrize("window", [None, 700])
def test_far_keys_lie_in_longer_chunks(monkeypatch, window):
    # Chunks as the kernels have them begin behind 8,192 keys, which the interpreter takes long to look at.
    check([rows(2, cache_of(8192 + 1500, kv_heads=1, dim=8))], window, heads=1, kv_heads=1, dim=8)
    assert places_module.chunks_of(8192 + 1502) == 34


def test_a_token_has_the_same_bits_alone_and_in_company():
    def draft(length, count, seed, shared=False):
        return written(rows(count, cache_of(length, seed=seed, shared=shared)), seed)

    text = draft(600, 9, 1, shared=True)
    qkv = drawn(MAX_ROWS, (HEADS + 2 * KV_HEADS) * DIM, seed=77)
    for window in (None, 130):
        company = [draft(70, 3, 5), text, draft(900, 4, 6)]
        together = attended(company, qkv, window)[3:12]
        # Alone: in another place of the block, shared among another number of programs.
        moved = torch.full_like(qkv, float("nan"))
        moved[:9] = qkv[3:12]
        assert torch.equal(attended([text], moved, window, programs=5)[:9], together)
        # One after another, each behind a longer past.
        for row in range(9):
            one = draft(600, 9, 1)  # its own rows, in one segment
            one.cache.advance(row)
            single = torch.full_like(qkv, float("nan"))
            single[0] = qkv[3 + row]
            found = attended([rows(1, one.cache)], single, window, programs=1)[0]
            assert torch.equal(found, together[row])


def test_half_precision():
    caches = [cache_of(400, seed=1, dtype=torch.bfloat16), cache_of(80, seed=2, dtype=torch.bfloat16)]
    readers = [written(rows(3, cache), seed, torch.bfloat16) for seed, cache in enumerate(caches)]
    qkv = drawn(MAX_ROWS, (HEADS + 2 * KV_HEADS) * DIM, seed=77, dtype=torch.bfloat16)
    out = attended(readers, qkv).double()
    for at, (reader, row) in enumerate((reader, row) for reader in readers for row in range(3)):
        expected = expected_of(qkv[at].view(-1, DIM)[:HEADS], reader, row)
        # Weights and result have eight bits, and the interpreter cuts off the others.
        assert (out[at].view(HEADS, DIM) - expected).norm() < 0.01 * expected.norm()
