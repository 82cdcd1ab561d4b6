import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.proposers.candidates import Candidate, Rates, depth_first, merged

CONTINUATIONS = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple), st.sampled_from([1.0, 2.0, 16.0])),
    max_size=12,
)


def tree(continuations, rate=0.5, most=15, depth=4, last=()):
    return merged(continuations, lambda level: rate, most=most, depth=depth, last_tokens=last)


def path(candidates, index):
    tokens = []
    while index >= 0:
        tokens.insert(0, candidates[index].token)
        index = candidates[index].parent
    return tuple(tokens)


@given(CONTINUATIONS, st.integers(0, 15), st.integers(0, 5))
def test_the_likeliest_prefixes_of_what_was_found(continuations, most, depth):
    found = tree(continuations, most=most, depth=depth)
    paths = [path(found, index) for index in range(len(found))]
    weights = {}
    for tokens, weight in continuations:
        for end in range(1, min(len(tokens), depth) + 1):
            weights[tokens[:end]] = weights.get(tokens[:end], 0.0) + weight
    assert len(set(paths)) == len(paths) == min(most, len(weights)) and set(paths) <= weights.keys()
    for each, tokens in zip(found, paths, strict=True):
        siblings = sum(
            weight for other, weight in weights.items() if other[:-1] == tokens[:-1] and len(other) == len(tokens)
        )
        assert each.share == pytest.approx(weights[tokens] / siblings)
        above = 1.0 if each.parent < 0 else found[each.parent].chance
        assert each.chance == pytest.approx(above * 0.5 * each.share)
    assert [each.chance for each in found] == sorted((each.chance for each in found), reverse=True)


def test_nothing_follows_the_end():
    assert [each.token for each in tree([((1, 9, 2), 1.0)], last={9})] == [1, 9]


@given(CONTINUATIONS)
def test_branches_in_one_piece(continuations):
    found = tree(continuations)
    tokens, parents = depth_first(found)
    assert len(tokens) == len(found) and all(parent < index for index, parent in enumerate(parents))
    there = {path([Candidate(t, p, 0, 0) for t, p in zip(tokens, parents, strict=True)], i) for i in range(len(tokens))}
    assert there == {path(found, index) for index in range(len(found))}
    for index, parent in enumerate(parents):
        if index and parent != index - 1:  # a branch begins only where the one before it has ended
            assert index - 1 not in parents
    if found:
        assert tokens[0] == found[0].token


def test_rates_follow_what_came():
    rates = Rates()
    found = tree([((1, 2), 1.0), ((3,), 1.0)])
    before = rates(4), rates(5)
    for _ in range(30):
        rates.learn(found, 4, [1, 7])
    assert rates(4) > max(before[0], 0.9) and rates(5) < min(before[1], 0.2)
    assert rates(2) == Rates()(2)


def test_what_was_found_in_part_is_judged_by_its_part():
    """A candidate with half of the share that comes half of the time is as good as its rate says."""
    rates, half = Rates(), [Candidate(1, -1, 0.5, 0.5)]
    for turn in range(200):
        rates.learn(half, 4, [1 if turn % 4 == 0 else 2])
    assert rates(4) == pytest.approx(0.5, abs=0.1)
