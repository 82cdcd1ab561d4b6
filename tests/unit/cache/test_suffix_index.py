"""The suffix index against a search that is written down plainly."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.cache.suffix_index import LONGEST, SuffixIndex

TOKENS = st.lists(st.integers(0, 3), max_size=60)


def places(text, wanted):
    """Return where `wanted` has just been read and something follows."""
    return [end for end in range(len(wanted), len(text)) if text[end - len(wanted) : end] == wanted]


def plain_search(text, tail):
    for length in range(min(len(tail), LONGEST), 0, -1):
        if found := places(text, tail[-length:]):
            return length, found
    return 0, []


@given(TOKENS, TOKENS, st.integers(1, 20))
def test_the_longest_end_that_occurs(text, tail, length):
    index = SuffixIndex.build(text)
    wanted, ends = plain_search(text, tail)
    match = index.longest(tail)
    if not wanted:
        assert match is None
        return
    assert match.length == wanted and match.end - match.begin == len(ends)
    found = index.behind(match, 1000, length)
    assert sorted(found) == sorted(tuple(text[end : end + length]) for end in ends)
    assert index.longest(tail, wanted + 1) is None


@given(TOKENS, TOKENS, st.integers(0, 60))
def test_text_behind_a_limit_does_not_exist(text, tail, limit):
    index, cut = SuffixIndex.build(text), text[:limit]
    match = index.longest(tail)
    if match is not None:
        wanted = [tuple(cut[end : end + 5]) for end in places(cut, tail[-match.length :])]
        assert sorted(index.behind(match, 1000, 5, min(limit, len(text)))) == sorted(wanted)


@given(TOKENS, TOKENS)
def test_a_shorter_end(text, tail):
    index = SuffixIndex.build(text)
    if (match := index.longest(tail)) is not None:
        for length in range(1, match.length + 1):
            shorter = index.shorter(tail, length)
            assert shorter.end - shorter.begin == len(places(text, tail[-length:]))


def test_long_matches_are_told_apart_up_to_a_length():
    text = [7, *range(100, 100 + LONGEST), 1, 8, *range(100, 100 + LONGEST), 2]
    index = SuffixIndex.build(text)
    match = index.longest([8, *range(100, 100 + LONGEST)])
    assert match.length == LONGEST and {each[0] for each in index.behind(match, 9, 1)} == {1, 2}


def test_of_many_places_some_are_taken_from_everywhere():
    text = [each for n in range(100) for each in (1, 2, 10 + n)]
    index = SuffixIndex.build(text)
    found = index.behind(index.longest([1, 2]), 10, 1)
    assert len({each[0] for each in found}) == 10


@pytest.mark.parametrize("text", [[], [1], [2**31]])
def test_nothing_to_find(text):
    assert SuffixIndex.build(text).longest([1]) is None
    assert SuffixIndex.build([1, 2]).longest([]) is None


def test_large_ids_are_ordered_as_numbers():
    text = [255, 256, 65_535, 65_536, 1, 256, 2, 255, 3]
    index = SuffixIndex.build(text)
    for end in range(1, len(text)):
        assert index.behind(index.longest(text[:end]), 1, 1) == [(text[end],)]


def seconds_of_a_lookup(length):
    """Return the median of 200 in a text of `length` tokens, in seconds of this thread alone."""
    rng = np.random.default_rng(0)
    text = rng.zipf(1.3, length) % 30_000
    index = SuffixIndex.build(text)
    tails = [text[end - 20 : end].tolist() for end in rng.integers(30, len(text), 200)]
    seconds = []
    for tail in tails:
        start = time.thread_time()
        index.behind(index.longest(tail), 12, 15)
        seconds.append(time.thread_time() - start)
    return float(np.median(seconds))


@pytest.mark.slow
def test_a_million_tokens_take_hardly_longer_than_ten_thousand():
    assert seconds_of_a_lookup(1_000_000) < 5 * seconds_of_a_lookup(10_000)  # a scan would take a hundred times as long
