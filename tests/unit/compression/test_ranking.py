import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rapid_integrations.compression.ranking import fused, standardised, with_neighbours, with_second_round
from rapid_integrations.compression.word_index import WordIndex, index_terms


def test_standardised_scores_have_mean_0_and_deviation_1():
    scores = standardised(np.array([1.0, 2.0, 6.0]))
    assert scores.mean() == pytest.approx(0) and scores.std() == pytest.approx(1)
    assert standardised(np.array([3.0, 3.0])).tolist() == [0.0, 0.0]
    assert standardised(np.array([])).tolist() == []


@pytest.mark.parametrize("broken", [math.nan, -math.inf, math.inf])
def test_what_is_no_number_ranks_lowest(broken):
    scores = standardised(np.array([1.0, broken, 2.0]))
    assert np.isfinite(scores).all() and scores[1] < scores[0] < scores[2]
    assert standardised(np.array([broken, broken])).tolist() == [0.0, 0.0]


def test_both_kinds_count():
    words, vectors = np.array([5.0, 0.0, 0.0, 0.0]), np.array([0.1, 0.9, 0.2, 0.1])
    assert set(np.argsort(-fused([words, vectors]))[:2]) == {0, 1}
    assert fused([words]).tolist() == standardised(words).tolist()


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e3, 1e3)))
def test_a_scale_makes_no_difference(scores):
    if scores.std() > 1e-3:
        assert np.allclose(standardised(scores), standardised(7.5 * scores + 3), atol=1e-6)


def test_a_neighbour_of_the_best_chunk_is_nearly_as_good():
    scores = np.array([-1.0, 0.0, 3.0, 0.0, 1.0, -3.0])
    firsts = np.array([True, False, False, False, False, False])
    ranks = with_neighbours(scores, 0.2, firsts)
    assert np.argsort(-ranks).tolist()[:3] == [2, 1, 3] or np.argsort(-ranks).tolist()[:3] == [2, 3, 1]
    assert ranks[1] == pytest.approx(math.log(1 + 0.2 * math.exp(-1) + 0.2 * math.exp(3)))
    assert ranks[5] == pytest.approx(math.log(math.exp(-3) + 0.2 * math.exp(1)))  # it has one neighbour
    assert with_neighbours(scores, 0.0, firsts).tolist() == scores.tolist()
    assert with_neighbours(np.array([]), 0.2, np.array([], dtype=bool)).tolist() == []


def test_the_next_context_is_no_neighbour():
    scores = np.array([0.0, 0.0, 9.0, 0.0])
    ranks = with_neighbours(scores, 0.5, np.array([True, False, True, False]))
    assert ranks[1] == pytest.approx(math.log(1.5)) and ranks[3] > 8
    assert with_neighbours(np.array([2.0]), 0.5, np.array([True])).tolist() == [2.0]


def test_large_scores_stay_finite():
    assert np.isfinite(with_neighbours(np.array([0.0, 1e6, -1e6]), 0.3, np.array([True, False, False]))).all()


def test_a_second_round_looks_for_names_and_for_what_the_best_chunk_lacks():
    texts = ["the zeta journal, of omega", "omega is a press", "founded by hugo", *(f"filler{n}" for n in range(20))]
    words = WordIndex(texts)
    question = index_terms("who founded the zeta journal")
    ranks = standardised(words.scores(question))
    gained = with_second_round(ranks, words, question) - ranks
    assert np.argmax(ranks) == 0
    assert gained[1] > gained[3] and gained[2] > gained[3]  # a name of the best chunk; a term that it lacks
    assert gained[0] == pytest.approx(gained[3])  # it is found already
    assert with_second_round(np.array([]), WordIndex([]), question).tolist() == []
