"""A view shows some rows and layers of another cache where they lie, and reads on behind them."""

import pytest
import torch

from rapid_integrations.cache import TILE, KVCache
from rapid_integrations.cache.cache_view import CacheView
from rapid_integrations.cache.levels import restored
from rapid_integrations.cache.recurrent_state import RecurrentState
from rapid_integrations.errors import CacheError

LAYERS = 3


def rows(begin, end, layer=0):
    """Keys that say where they belong; values are their negatives."""
    return (torch.arange(begin, end).float() + 10_000 * layer).view(1, 1, -1, 1).expand(1, 2, -1, 4).contiguous()


def write(cache, begin, end):
    for layer in range(cache.layers):
        cache.write(layer, rows(begin, end, layer), -rows(begin, end, layer))
    cache.advance(end - begin)


def filled(length, capacity=1024):
    cache = KVCache(LAYERS, capacity)
    write(cache, 0, length)
    return cache


def seen(view, slot=0):
    keys, values = view.layer(slot)
    assert torch.equal(keys, -values)
    return keys[0, 0, :, 0].tolist()


def test_everything_is_seen_without_runs():
    view = CacheView(filled(100))
    assert seen(view) == list(range(100)) and view.length == view.position == 100


def test_new_rows_are_stored_as_the_other_caches_are():
    cache = KVCache(LAYERS, 512, kv_dtype="int8")
    write(cache, 0, 100)
    view = CacheView(cache)
    assert view.kv_dtype == "int8"
    write(view, 100, 103)
    write(cache, 100, 103)
    keys, values = view.layer(1)
    assert keys.dtype == torch.int8 and torch.equal(restored(keys, torch.float32), -restored(values, torch.float32))
    assert all(map(torch.equal, view.layer(1), cache.layer(1)))


def test_runs_and_layers():
    view = CacheView(filled(700), [(0, 64), (192, 320), (640, 700)], layers=(0, 2))
    expected = [*range(64), *range(192, 320), *range(640, 700)]
    assert seen(view) == expected
    assert seen(view, 1) == [each + 20_000 for each in expected]
    assert view.layers == view.filled_layers == 2
    assert (view.length, view.position) == (len(expected), 700)
    assert [each.begin for each in view.segments] == [0, 64, 192]


@pytest.mark.parametrize("runs", [None, [(0, 64), (384, 448), (512, 576)], [(320, 384)], [(640, 680)]])
def test_shared_segments_are_seen_where_they_lie(runs):
    cache = filled(500).fork(450, 1024)
    write(cache, 450, 680)
    assert len(cache.shared) == 1
    view = CacheView(cache, runs)
    wanted = [(0, 680)] if runs is None else [*runs[:-1], (runs[-1][0], 680)]
    assert seen(view) == [each for begin, end in wanted for each in range(begin, end)]
    held = {each.buffers.layer(0)[0].untyped_storage().data_ptr() for each in cache.segments}
    assert {each.buffers.layer(0)[0].untyped_storage().data_ptr() for each in view.segments} <= held
    assert all(each.begin % TILE == 0 for each in view.segments)


def test_new_rows_lie_behind_the_other_caches_own_and_are_forgotten():
    cache = filled(300)
    view = CacheView(cache, [(0, 64), (256, 300)])
    write(view, 1000, 1003)
    assert seen(view)[-4:] == [299, 1000, 1001, 1002] and view.position == 303
    assert cache.length == 300 and seen(cache) == list(range(300))
    write(cache, 300, 302)  # in the same place
    view.renew()
    assert seen(view) == [*range(64), *range(256, 302)] and view.position == 302
    view.rollback(view.length - 1)
    assert view.position == 301 and cache.length == 302


def test_a_view_has_as_much_room_as_the_cache():
    cache = filled(500, 512)
    view = CacheView(cache, [(0, 64), (448, 500)])
    write(view, 500, 512)
    with pytest.raises(CacheError, match="cannot take"):
        view.tail(1)


def test_what_has_no_rows_or_recurrent_layers_is_refused():
    for cache in (KVCache(LAYERS, 64), KVCache(LAYERS, 64, state=RecurrentState(64))):
        with pytest.raises(CacheError, match="no layer of its model may be recurrent"):
            CacheView(cache)
