"""Norm and rotation of queries and keys, and the rows that are written to caches, against the operators."""

import pytest
import torch

from rapid_integrations.kernels.cuda.rotary import rotate_and_write
from rapid_integrations.kernels.layers import Norm, Rope
from rapid_integrations.models.norms import normalised_heads
from rapid_integrations.models.rotation import spread_over_head, turned
from tests.unit.kernels.cuda.places_of import DIM, HEADS, KV_HEADS, cache_of, drawn, places_for, rows

WIDTH = HEADS + 2 * KV_HEADS
PAIRS = 20  # columns of the tables


def norms(scope, **kinds):
    def weight(count, seed):
        shape = {"every head": (DIM,), "own head": (count, DIM), "all heads": (count * DIM,)}[scope]
        return drawn(*shape, seed=seed)

    return tuple(Norm(weight(count, seed), 1e-5, scope=scope, **kinds) for seed, count in enumerate((HEADS, KV_HEADS)))


ROPES = {
    "whole": Rope(0, DIM // 2),
    "part": Rope(3, 5),
    "interleaved": Rope(2, 6, interleaved=True),
    "none": Rope(),
}
NORMS = {
    "no norm": (None, None),
    "every head": norms("every head"),
    "own head": norms("own head", centred=True),
    "all heads": norms("all heads"),
    "offset": norms("every head", offset=1.0),
}


def tables(seed):
    angles = drawn(700, PAIRS, seed=seed)
    return angles.cos(), angles.sin()


def expected_of(qkv, rope, both, position, own_tables):
    heads = qkv.view(1, WIDTH, DIM)
    cos, sin = (table[position : position + 1] for table in own_tables)
    qk = heads[:, : HEADS + KV_HEADS]
    if not rope.norm_behind:
        qk = normalised_heads(qk, HEADS, both)
    if rope.pairs:
        qk = turned(qk, rope, *spread_over_head((cos, sin), rope, DIM, torch.float32))
    if rope.norm_behind:
        qk = normalised_heads(qk, HEADS, both)
    return qk[0, :HEADS], qk[0, HEADS:], heads[0, HEADS + KV_HEADS :]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rope", ROPES)
def test_queries_keys_and_values(rope, norm):
    check(ROPES[rope], NORMS[norm])


@pytest.mark.parametrize("norm", ["every head", "own head"])
def test_norms_behind_the_rotation(norm):
    check(Rope(0, DIM // 2, norm_behind=True), NORMS[norm])


def check(rope, both):
    caches = [cache_of(300), cache_of(500, shared=True, seed=1, variant=1)]
    readers = [rows(2, caches[0]), rows(3, caches[1], (-1, 0, 0))]
    own = [tables(0), tables(1)]
    places = places_for(readers, tables=own)
    qkv = drawn(32, WIDTH * DIM, seed=5)
    before = [[buffer.clone() for buffer in cache.tail(0).layer(0)] for cache in caches]
    given = qkv.clone()
    rotate_and_write(qkv, places, 1, both, rope, HEADS, KV_HEADS, PAIRS)
    at = 0
    for reader, cache, own_tables in zip(readers, caches, own, strict=True):
        keys, values = cache.tail(0).layer(1)
        for row in range(reader.count):
            position = cache.length + reader.depths[row]
            query, key, value = expected_of(given[at], rope, both, position, own_tables)
            torch.testing.assert_close(qkv[at].view(WIDTH, DIM)[:HEADS], query, atol=2e-6, rtol=2e-6)
            place = cache.length + row - cache.tail_begin
            torch.testing.assert_close(keys[0, :, place], key, atol=2e-6, rtol=2e-6)
            assert torch.equal(values[0, :, place], value)
            at += 1
        behind = cache.length + reader.count - cache.tail_begin
        assert keys[:, :, behind:].isnan().all()
        assert values[:, :, behind:].isnan().all()
    for cache, was in zip(caches, before, strict=True):  # the other layer
        for buffer, held in zip(cache.tail(0).layer(0), was, strict=True):
            assert torch.equal(buffer.nan_to_num(9.0), held.nan_to_num(9.0))


def test_bfloat16():
    cache = cache_of(70, dtype=torch.bfloat16)
    own = tables(3)
    places = places_for([rows(4, cache)], tables=[own])
    qkv = drawn(32, WIDTH * DIM, seed=5, dtype=torch.bfloat16)
    given = qkv.clone()
    rotate_and_write(qkv, places, 0, (None, None), ROPES["whole"], HEADS, KV_HEADS, PAIRS)
    for row in range(4):
        query, key, value = expected_of(given[row].float(), ROPES["whole"], (None, None), 70 + row, own)
        written = [buffer[0, :, 70 + row] for buffer in cache.tail(0).layer(0)]
        for found, expected in ((qkv[row].view(WIDTH, DIM)[:HEADS], query), (written[0], key)):
            # The interpreter cuts off what a GPU rounds.
            assert ((found.float() - expected).abs() <= expected.abs() * 2**-7 + 1e-6).all()
        assert torch.equal(written[1].float(), value)
