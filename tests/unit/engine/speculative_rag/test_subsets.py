"""Clusters and subsets of passages."""

from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.engine.speculative_rag.subsets import clusters_of, subsets_of

CATS = ["a cat and a kitten drink milk", "milk for the kitten and the cat", "the cat purrs, the kitten sleeps"]
SHIPS = ["ships in the harbour", "a harbour full of ships with masts", "the harbour, a mast, the ships"]
MIXED = [text for pair in zip(CATS, SHIPS, strict=True) for text in pair]


def test_passages_of_one_subject_are_one_cluster():
    assert clusters_of(MIXED, 2) == [[0, 2, 4], [1, 3, 5]]


def test_each_subset_has_one_passage_of_each_cluster():
    subsets = subsets_of(MIXED, 5, 2)
    assert subsets[:3] == [(0, 1), (2, 3), (4, 5)]  # side by side first, so that every passage is soon in a draft
    assert len(set(subsets)) == 5 and all(len({place % 2 for place in subset}) == 2 for subset in subsets)


def test_few_passages_are_one_subset():
    assert subsets_of(CATS[:2], 5, 2) == [(0, 1)]
    assert subsets_of(CATS[:1], 5, 2) == [(0,)]


def test_no_subset_is_given_twice():
    assert sorted(subsets_of([*CATS[:2], *SHIPS[:2]], 32, 2)) == [(0, 2), (0, 3), (1, 2), (1, 3)]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=12), st.integers(1, 6), st.integers(1, 5))
def test_any_texts(passages, subsets, size):
    found = subsets_of(passages, subsets, size)
    assert 1 <= len(found) <= subsets and len(set(found)) == len(found)
    assert all(list(each) == sorted(set(each)) and len(each) <= size for each in found)
    assert found == subsets_of(passages, subsets, size)
    clusters = clusters_of(passages, min(size, len(passages)))
    assert sorted(place for cluster in clusters for place in cluster) == list(range(len(passages)))
