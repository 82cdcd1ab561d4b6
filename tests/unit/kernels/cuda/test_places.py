"""What the kernels read of a step: rows, readers, segments and addresses."""

import gc

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.cache.chunk_view import ChunkView
from rapid_integrations.errors import CacheError
from rapid_integrations.kernels.cuda import places as places_module
from rapid_integrations.kernels.cuda.places import (
    FAR_CHUNK,
    MAX_ROWS,
    MAX_SEGMENTS,
    NEAR,
    NEAR_CHUNK,
    ancestors_of,
    chunks_of,
    holds,
)
from tests.unit.kernels.cuda.places_of import cache_of, places_for, rows


def test_chunks_begin_at_absolute_positions():
    near = NEAR // NEAR_CHUNK
    expected = {1: 1, NEAR_CHUNK: 1, NEAR_CHUNK + 1: 2, NEAR: near, NEAR + 1: near + 1, NEAR + FAR_CHUNK: near + 1}
    assert {tokens: chunks_of(tokens) for tokens in expected} == expected


def test_rows_of_several_readers_lie_behind_each_other():
    first, second = cache_of(300), cache_of(500, shared=True)
    tree = Rows(torch.tensor([7, 8, 9]), second, 1, parents=(-1, 0, 0))
    places = places_for([rows(2, first), tree])
    parts = places.parts
    assert parts.ids[:5].tolist() == [0, 1, 7, 8, 9]
    assert parts.positions[:5].tolist() == [300, 301, 500, 501, 501]
    assert parts.tails[:5].tolist() == [300, 301, *(row - second.tail_begin for row in (500, 501, 502))]
    assert parts.reader_of.tolist() == [0, 0, 1, 1, 1] + [-1] * (MAX_ROWS - 5)
    assert parts.ancestors[:5].tolist() == [0b1, 0b11, 0b1, 0b11, 0b101]
    assert parts.count[:2].tolist() == [2, 3]
    assert parts.first[:2].tolist() == [0, 2]
    assert parts.ahead[:2].tolist() == [0, 0]
    assert parts.segment_count[:2].tolist() == [1, 2]
    assert parts.first_segment[:2].tolist() == [0, 1]
    held = parts.segments[:9].view(3, 3)
    assert held[:, :2].tolist() == [[0, 302], [0, second.tail_begin], [second.tail_begin, 503]]
    assert parts.work[:3].tolist() == [0, 2, 4]
    assert set(parts.work[2:].tolist()) == {4}
    assert places.longest == 503


def test_addresses_are_those_of_the_buffers():
    cache = cache_of(500, shared=True)
    places = places_for([rows(1, cache)])
    for at, segment in enumerate(cache.segments):
        slot = int(places.parts.segments[3 * at + 2])
        for layer in range(2):
            found = places.addresses[slot, layer].tolist()
            assert found == [buffer.data_ptr() for buffer in segment.buffers.layer(layer)]
        assert int(places.capacities[slot]) == segment.buffers.layer(0)[0].shape[2]


def test_a_view_is_read_where_it_lies_and_at_the_positions_of_its_text():
    document = cache_of(1000, 1100)
    view = ChunkView(document, [(0, 64), (256, 448), (640, 704)], 400)
    places = places_for([rows(2, cache_of(70)), rows(3, view)])
    parts = places.parts
    assert holds(view) and parts.segment_count[1] == 4 and parts.first_segment[1] == 1
    found = parts.segments[3:15].view(4, 3)
    assert found[:, :2].tolist() == [[0, 64], [64, 256], [256, 320], [320, 323]]
    assert parts.ahead[:2].tolist() == [0, 704 - 320]
    keys, values = document.tail(0).layer(1)
    width = keys.shape[3]
    slot = int(found[1, 2])
    assert places.addresses[slot, 1].tolist() == [each.data_ptr() + 4 * 256 * width for each in (keys, values)]
    assert int(places.capacities[slot]) == keys.shape[2]


def test_what_lies_in_other_ways_is_not_held(monkeypatch):
    document = cache_of(MAX_SEGMENTS * 128 + 64, MAX_SEGMENTS * 128 + 128)
    runs = [(128 * at, 128 * at + 64) for at in range(MAX_SEGMENTS)]
    many = ChunkView(document, runs, 8000)
    assert not holds(many) and holds(ChunkView(document, runs[1:], 8000))
    with pytest.raises(CacheError, match="take a fork"):
        places_for([rows(1, many)])
    eight_bits = cache_of(70)
    eight_bits.kv_dtype = "int8"
    assert not holds(eight_bits)


@pytest.mark.long
def test_slots_of_dead_caches_are_used_again_and_there_may_be_many(monkeypatch):
    monkeypatch.setattr(places_module, "_BUFFERS", 64)
    places = places_for([rows(1, cache_of(70))])
    gc.collect()
    before = len(places.capacities)
    for seed in range(3 * before):
        places.fill([rows(1, cache_of(70, seed=seed))], [(torch.empty(0, 0),) * 2])
    assert len(places.capacities) == before
    held = [cache_of(70, seed=seed) for seed in range(before + 1)]
    for cache in held:
        places.fill([rows(1, cache)], [(torch.empty(0, 0),) * 2])
        slot = int(places.parts.segments[2])
        assert places.addresses[slot, 1].tolist() == [each.data_ptr() for each in cache.tail(0).layer(1)]
    assert len(places.capacities) > before


def test_what_does_not_fit_is_refused():
    with pytest.raises(CacheError, match="33 rows"):
        places_for([rows(33, cache_of(70, 600))])
    with pytest.raises(CacheError, match="cannot take"):
        places_for([rows(2, cache_of(511, 512))])
    with pytest.raises(CacheError, match="another model's"):
        places_for([rows(1, cache_of(70, dim=16))])
    with pytest.raises(CacheError, match="keep=3"):
        places_for([Rows(torch.arange(2), cache_of(70), 3)])


def test_a_tree_goes_from_parents_to_children():
    cache = cache_of(70)
    assert ancestors_of(rows(4, cache, (-1, 0, 1, 1))) == [0b1, 0b11, 0b111, 0b1011]
    with pytest.raises(CacheError, match="before its child"):
        ancestors_of(rows(2, cache, (1, -1)))
