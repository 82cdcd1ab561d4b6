"""The search for layers to leave out keeps what gives most tokens for its counted cost, and reads no clock."""

import pytest

from rapid_integrations.proposers.layer_search import LayerSearch, evenly_spread


def share(skipped):
    return 1 - len(skipped) / 30


def run(search, knows, tokens=10_000):
    """`knows` says whether a set of layers guesses the token of this number."""
    tried = []
    for token in range(tokens):
        if (candidate := search.candidate()) is None:
            break
        if not tried or tried[-1] != candidate:
            tried.append(candidate)
        search.learn(knows(search.best, token), knows(candidate, token))
    return tried


def test_it_finds_the_layers_that_matter():
    needed = frozenset(range(0, 30, 2))  # without one of these every second guess is wrong
    search = LayerSearch(30, share)
    search.MOST = 200
    tried = run(search, lambda skipped, token: token % (1 + len(skipped & needed)) == 0)
    assert len(tried) == len(set(tried)) == 200
    assert not search.best & needed and len(search.best) >= 13


def test_it_ends_and_repeats():
    searches = [LayerSearch(30, share) for _ in range(2)]
    tried = [run(search, lambda skipped, token: (len(skipped) + token) % 3 == 0) for search in searches]
    assert tried[0] == tried[1] and len(tried[0]) == LayerSearch.MOST
    assert searches[0].best == searches[1].best and searches[0].candidate() is None


def test_a_worse_set_does_not_replace_a_better_one():
    search = LayerSearch(30, share)
    first = search.best
    run(search, lambda skipped, token: skipped == first)
    assert search.best == first


@pytest.mark.parametrize("layers", [2, 3, 6, 30, 80])
def test_layers_are_spread_evenly_and_the_first_and_the_last_one_stay(layers):
    found = sorted(evenly_spread(layers, 0.45))
    assert found and set(found) <= set(range(1, max(2, layers - 1)))
    assert abs(len(found) - 0.45 * layers) <= 1
    apart = {b - a for a, b in zip(found, found[1:], strict=False)}
    assert not apart or max(apart) - min(apart) <= 1


def test_a_model_of_two_layers_has_few_sets():
    search = LayerSearch(2, share)
    assert len(run(search, lambda skipped, token: True)) == 1  # the other layer
    assert search.candidate() is None
