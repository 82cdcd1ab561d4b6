"""Caches that share their beginnings, against plain lists of tokens: what each holds, what it may do, what it costs."""

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.cache import CAPACITY_BUCKET, TILE, KVCache, distinct_bytes
from rapid_integrations.cache.segments import LEAST_TILES, MOST_SEGMENTS
from rapid_integrations.errors import CacheError
from tests.toys.budget import examples
from tests.toys.errors import coded
from tests.toys.token_cache import HEADS, LAYERS, WIDTH, append, held, holding, text

ROW_BYTES = LAYERS * HEADS * WIDTH * 2 * 4
DOCUMENT = text(1, 600)


def tail_rows(cache):
    return cache.nbytes // ROW_BYTES


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 319, 320, 599, 600])
def test_whole_tiles_are_shared_and_the_rest_is_copied(length):
    cache = holding(DOCUMENT)
    fork = cache.fork(length, length + 10)
    assert held(fork) == DOCUMENT[:length] and fork.length == length and fork.capacity >= length + 10
    shared = length // TILE * TILE if length >= LEAST_TILES * TILE else 0
    assert [(each.begin, each.end) for each in fork.shared] == ([(0, shared)] if shared else [])
    assert tail_rows(fork) == (-(-(length + 10 - shared) // TILE) * TILE if shared else CAPACITY_BUCKET)
    assert distinct_bytes([fork, cache, fork]) == cache.nbytes + fork.nbytes
    assert distinct_bytes([fork]) == fork.nbytes + bool(shared) * cache.nbytes
    append(fork, [7, 8])
    assert held(fork) == [*DOCUMENT[:length], 7, 8] and held(cache) == DOCUMENT


def test_rows_go_with_their_last_holder_at_once():
    cache = holding(DOCUMENT)
    fork = cache.fork(512, 600)
    rows = weakref.ref(cache.segments[-1].buffers)
    gc.disable()
    try:
        del cache
        assert rows() is not None  # the fork reads them
        del fork
        assert rows() is None
    finally:
        gc.enable()


def test_both_go_on_without_seeing_each_other():
    cache = holding(DOCUMENT, 1000)
    fork = cache.fork(500, 800)
    append(cache, [1, 2, 3])
    append(fork, [4, 5])
    cache.rollback(448)
    append(cache, text(2, 300))
    assert held(fork) == [*DOCUMENT[:500], 4, 5]
    assert held(cache) == [*DOCUMENT[:448], *text(2, 300)]


def test_what_others_share_cannot_be_rolled_back():
    cache = holding(DOCUMENT)
    fork = cache.fork(500, 600)
    for each in (cache, fork):  # 448 rows are shared
        with pytest.raises(CacheError, check=coded("cache.shared")):
            each.rollback(447)
        each.rollback(448)
    fork.fork(300, 400)
    fork.rollback(448)
    del fork
    with pytest.raises(CacheError, check=coded("cache.shared")):  # nobody counts forks that are gone
        cache.rollback(0)


def test_a_frozen_cache_is_only_forked():
    cache = holding(DOCUMENT, 1000)
    cache.freeze()
    cache.rollback(600)  # nothing changes
    with pytest.raises(CacheError, check=coded("cache.shared")):
        cache.rollback(599)
    for write in (lambda: append(cache, [1]), lambda: cache.tail(1)):
        with pytest.raises(CacheError, check=coded("cache.frozen")):
            write()
    fork = cache.fork(600, 1000)
    append(fork, [1])
    assert held(fork) == [*DOCUMENT, 1] and held(cache) == DOCUMENT


def test_what_cannot_be_forked():
    cache = holding(DOCUMENT)
    for length in (-1, 601):
        with pytest.raises(CacheError, check=coded("cache.fork")):
            cache.fork(length, 1000)
    with pytest.raises(CacheError, check=coded("cache.full")):
        cache.fork(500, 499)
    assert KVCache(2, 10).fork(0, 600).filled_layers == 0


def test_a_full_fork_refuses_the_next_token():
    fork = holding(DOCUMENT).fork(576, 576)
    assert fork.capacity == 576 and held(fork) == DOCUMENT[:576]
    with pytest.raises(CacheError, check=coded("cache.full")):
        append(fork, [1])


def test_a_chat_has_a_short_chain():
    tokens = text(1, 1000)
    cache, most = holding(tokens), 0
    for turn in range(40):
        cache = cache.fork(len(tokens), len(tokens) + 300)
        new = text(turn, 300)
        append(cache, new)
        tokens += new
        most = max(most, len(cache.shared))
        begins = [each.begin for each in cache.segments]
        assert begins[0] == 0 and begins == sorted(set(begins)) and all(begin % TILE == 0 for begin in begins)
        assert [each.end for each in cache.segments][:-1] == begins[1:]
    assert held(cache) == tokens and 2 < most <= MOST_SEGMENTS
    short = holding(text(1, 1000))
    for _ in range(5):  # turns of few tokens are copied: no segment is added
        short = short.fork(short.length, short.length + 40)
        append(short, text(3, 40))
    assert len(short.shared) == 1


def test_buffers_are_freed_with_the_last_cache_that_refers_to_them():
    cache = holding(DOCUMENT)
    buffers = weakref.ref(cache.segments[0].buffers)
    forks = [cache.fork(500, 600), cache.fork(400, 600)]
    forks.append(forks[0].fork(460, 700))
    del cache
    gc.collect()
    while forks:
        assert buffers() is not None
        forks.pop()
        gc.collect()
    assert buffers() is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["fork", "append", "rollback"]), st.integers(0, 10**6), st.floats(0, 1)), max_size=25
)


@settings(max_examples=examples(80))
@given(steps=STEPS)
def test_any_history_of_forks_equals_lists_of_tokens(steps):
    caches = [(holding(text(0, 700), 3000), text(0, 700))]
    for number, (what, which, share) in enumerate(steps):
        cache, tokens = caches[which % len(caches)]
        length = int(share * len(tokens))
        if what == "fork":
            caches.append((cache.fork(length, length + 400), tokens[:length]))
        elif what == "append":
            new = text(number, min(int(300 * share) + 1, cache.capacity - cache.length))
            append(cache, new) if new else None
            tokens += new
        else:
            least = max((each.end for other, _ in caches for each in other.shared), default=0)
            cache.rollback(max(min(least, cache.length), length))
            del tokens[cache.length :]
        for each, expected in caches:
            assert held(each) == expected
    buffers = {id(each.buffers): each.buffers.nbytes for cache, _ in caches for each in cache.segments}
    assert distinct_bytes(cache for cache, _ in caches) == sum(buffers.values())
    assert sum(buffers.values()) == sum(cache.nbytes for cache, _ in caches)  # each is somebody's tail
