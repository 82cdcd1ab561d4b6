import uuid
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.compression import Chunk, ScoredChunk, select
from rapid_integrations.compression.selection import relevance_of, select_positions, usable_score


def chunks_of(*texts_and_tokens):
    chunks, position = [], 0
    for index, (text, tokens) in enumerate(texts_and_tokens):
        chunks.append(Chunk(index, position, position + len(text), text, tokens))
        position += len(text)
    return chunks


def distinct(*tokens):
    return chunks_of(*((f"chunk {index}", n) for index, n in enumerate(tokens)))


scored = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 20), st.floats(-1, 1, width=16)), max_size=20)
limits = st.tuples(st.integers(0, 100), st.floats(-1, 1), st.integers(1, 5))


def test_the_best_within_the_budget_come_in_document_order():
    chunks = distinct(10, 10, 10, 10)
    chosen = select(chunks, np.array([0.5, 0.9, 0.4, 0.8]), 30, 0.1, 1)
    assert chosen == [ScoredChunk(chunks[0], 0.5), ScoredChunk(chunks[1], 0.9), ScoredChunk(chunks[3], 0.8)]


def test_ties_go_to_the_earlier_chunk():
    assert select_positions(distinct(10, 10, 10), [0.5, 0.5, 0.5], 20, 0.1, 1) == [0, 1]


def test_the_threshold_is_inclusive():
    assert select_positions(distinct(1, 1, 1), [0.9, 0.3, 0.29], 100, 0.3, 1) == [0, 1]


@pytest.mark.parametrize(
    ("best", "threshold", "relevance"),
    [(0.2, 0.3, 0.0), (0.3, 0.3, 0.0), (0.375, 0.3, 0.5), (0.45, 0.3, 1.0), (0.9, 0.3, 1.0), (-0.5, -1.0, 1.0)],
)
def test_relevance_grows_from_the_threshold_on(best, threshold, relevance):
    assert relevance_of(best, threshold) == pytest.approx(relevance)


def test_a_chunk_that_does_not_fit_lets_smaller_ones_follow():
    assert select_positions(distinct(10, 30, 10, 11), [0.9, 0.8, 0.7, 0.6], 20, 0.1, 1) == [0, 2]


def test_the_budget_may_be_met_exactly():
    assert select_positions(distinct(10, 10), [0.9, 0.8], 20, 0.1, 1) == [0, 1]
    assert select_positions(distinct(10, 11), [0.9, 0.8], 20, 0.1, 1) == [0]


def test_the_best_ones_are_taken_whatever_score_and_budget():
    chunks = distinct(100, 1, 100)
    assert select_positions(chunks, [-0.5, -0.9, -0.6], 0, 0.3, 2) == [0, 2]


def test_what_was_taken_regardless_counts_against_the_budget():
    assert select_positions(distinct(15, 10, 5), [0.9, 0.8, 0.7], 20, 0.1, 1) == [0, 2]


def test_the_budget_pays_first_for_what_is_always_taken():
    chunks, scores = distinct(10, 10, 10, 10), [0.0, 0.9, 0.8, 0.7]
    assert select_positions(chunks, scores, 30, 0.1, 1) == [1, 2, 3]
    assert select_positions(chunks, scores, 30, 0.1, 1, always=[0]) == [0, 1, 2]
    assert select_positions(chunks, scores, 0, 0.1, 1, always=[0]) == [0, 1]  # the best one beside it, as ever
    repeated = chunks_of(("a", 10), ("b", 10), ("a", 10), ("c", 10))
    assert select_positions(repeated, [0.0, 0.9, 0.8, 0.7], 30, 0.1, 1, always=[0]) == [0, 1, 3]


def test_repeats_are_skipped_and_do_not_count_as_chunks():
    chunks = chunks_of(("same text", 5), ("other", 5), ("same\n  text ", 5), ("third", 5))
    assert select_positions(chunks, [0.5, 0.4, 0.5, 0.1], 100, 0.3, 3) == [0, 1, 3]


def test_of_repeats_the_better_ranked_one_stays():
    chunks = chunks_of(("same text", 5), ("same  text", 5))
    assert select_positions(chunks, [0.5, 0.6], 100, 0.3, 1) == [1]


def test_nothing_in_nothing_out():
    assert select([], [], 10, 0.3, 2) == []


def test_nan_is_the_lowest_score_and_is_not_reported_as_a_number():
    chunks = distinct(1, 1, 1)
    assert select_positions(chunks, [float("nan"), 0.1, 0.5], 10, 0.3, 2) == [1, 2]
    assert [scored.score for scored in select(chunks, [float("nan")] * 3, 10, 0.3, 2)] == [None, None]
    assert [scored.chunk for scored in select(chunks, [float("nan"), float("inf"), 0.1], 10, 0.3, 1)] == [chunks[1]]


def test_somebody_elses_scores_are_numbers_of_any_kind_and_nan_is_said_once():
    assert usable_score(np.float32(0.5), "a") == 0.5 and usable_score(Fraction(1, 2), "a") == 0.5
    assert usable_score(None, "a") is usable_score("0.5", "a") is usable_score(True, "a") is None
    assert usable_score(float("inf"), "a") == float("inf")
    whose = f"a retriever {uuid.uuid4()}"
    with pytest.warns(UserWarning, match=f"{whose} gave NaN, which is not a number"):
        assert usable_score(np.float64("nan"), whose) == -float("inf")
    assert usable_score(float("nan"), whose) == -float("inf")  # warnings are errors here: it is said once


@given(scored, limits)
def test_laws_of_selection(rows, limits):
    budget, threshold, min_chunks = limits
    chunks = chunks_of(*((text, tokens) for text, tokens, _ in rows))
    scores = [score for _, _, score in rows]
    chosen = select_positions(chunks, scores, budget, threshold, min_chunks)

    assert chosen == sorted(set(chosen))
    assert len({chunks[p].text for p in chosen}) == len(chosen)
    distinct_texts = len({chunk.text for chunk in chunks})
    assert len(chosen) >= min(min_chunks, distinct_texts)
    by_rank = sorted(chosen, key=lambda p: (-scores[p], p))
    extra = by_rank[min_chunks:]
    assert all(scores[p] >= threshold for p in extra)
    if extra:
        assert sum(chunks[p].tokens for p in chosen) <= budget
    # Whatever was left out is a repeat, scores too little, or did not fit behind the better ones.
    for position in set(range(len(chunks))) - set(chosen):
        repeats = any(chunks[p].text == chunks[position].text for p in chosen)
        better = [p for p in chosen if (-scores[p], p) < (-scores[position], position)]
        fits = sum(chunks[p].tokens for p in better) + chunks[position].tokens <= budget
        same_text = [p for p in range(len(chunks)) if chunks[p].text == chunks[position].text]
        best_of_its_text = min(same_text, key=lambda p: (-scores[p], p)) == position
        assert repeats or not best_of_its_text or scores[position] < threshold or not fits


@given(scored, limits)
def test_a_larger_threshold_never_adds_a_chunk_that_fits_anyway(rows, limits):
    _, threshold, min_chunks = limits
    chunks = chunks_of(*((text, tokens) for text, tokens, _ in rows))
    scores = [score for _, _, score in rows]
    everything = select_positions(chunks, scores, 10_000, -1.0, min_chunks)
    some = select_positions(chunks, scores, 10_000, threshold, min_chunks)
    assert set(some) <= set(everything)
