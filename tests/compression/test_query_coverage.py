"""Query term coverage: worked by hand, and what holds for any text."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.compression import query_coverage, trust_of

FILLER = " ".join(["the council met"] * 32)  # 96 words: one stride, and two windows of 64 on half each


def test_worked_by_hand():
    # 4 x 96 words: windows of 64 at 0, 32, ..., 320: 11 of them. "nils engel" begins in one of the first half's
    # windows only if it stands before word 32: at word 0 it is in window 0 alone.
    document = "Nils Engel has a badge. " + " ".join(["the council met"] * 126) + "."
    words = 5 + 378
    assert math.ceil((words - 32) / 32) == 11
    kept = "Engel has a badge."
    # Of the question, the document has: nils, engel, (nils engel), badge, (a badge): each in one window of 11.
    # "the" and "(badge the)": "the" is in all of them, and counts nothing. What was kept lacks nils and (nils engel).
    question = "Nils Engel: a badge? The"
    in_document = {"nils", "engel", "nils engel", "a", "a badge", "badge", "badge the"}
    in_kept = {"engel", "a", "a badge", "badge"}
    weight = math.log(11 / 1) ** 2
    assert query_coverage([document], [kept], question) == pytest.approx(
        len(in_kept) * weight / (len(in_document) * weight)
    )


def test_a_term_in_many_windows_counts_less():
    # Windows begin every 32 words; "rare" is in the first only, "often" in all but the last ones.
    document = "rare " + " ".join((["x"] * 15 + ["often"]) * 8) + " y" * 320
    lost_rare = query_coverage([document], ["often"], "rare often")
    lost_often = query_coverage([document], ["rare"], "rare often")
    assert 0 < lost_rare < 0.5 < lost_often < 1


def test_a_name_that_was_not_retrieved_is_what_matters():
    people = ["Nils Berg", "Ada Engel", "Nils Holm", "Mira Engel", "Ada Holm", "Mira Berg"]
    document = "\n\n".join(
        f"{person} came to the meeting of the council and spoke about the harbour and its dues for a while." * 3
        for person in [*people, "Nils Engel", *people]
    )
    question = "When did Nils Engel speak about the harbour?"
    found = query_coverage([document], ["Nils Engel came to the meeting"], question)
    missed = query_coverage([document], ["Nils Holm came to the meeting. Mira Engel came to the harbour."], question)
    assert trust_of(found) > 0.8 and trust_of(missed) == 0.0


@pytest.mark.parametrize(
    ("document", "question"),
    [
        ("", "who?"),
        ("a short text about one thing", "one thing?"),  # one window: every term is everywhere
        (FILLER * 10, "Something else entirely"),
        (FILLER * 10, "the council met"),
        (FILLER * 10, "?!"),
    ],
)
def test_where_no_term_tells_anything_nothing_is_covered(document, question):
    assert query_coverage([document], [document], question) == 0.0


def test_case_and_punctuation_do_not_matter():
    document = FILLER * 4 + " Straße, ÉCOLE: nine-to-five. " + FILLER * 4
    assert query_coverage([document], ["STRASSE école NINE to five"], "straße École nine to FIVE?") == 1.0


def test_scripts_without_spaces_are_seen_by_their_pairs():
    filler = "今日は会議で予算について話しました。" * 40
    document = filler + "山田太郎の番号は四二七です。" + filler + "山本次郎の番号は五五五です。"
    question = "山田太郎の番号は何ですか"
    assert query_coverage([document], ["山田太郎の番号は四二七です。"], question) > 0.9
    assert trust_of(query_coverage([document], ["山本次郎の番号は五五五です。"], question)) < 0.2


def test_contexts_count_together_and_pairs_do_not_reach_from_one_to_the_next():
    first, second = FILLER * 3 + " red", "apple " + FILLER * 3
    assert query_coverage([first, second], ["red", "apple"], "red apple") == 1.0
    assert query_coverage([first + " apple", second], ["red", "apple"], "red apple") < 1.0


WORDS = st.lists(st.sampled_from("alpha beta gamma delta the of 山 田".split()), max_size=200).map(" ".join)


@settings(deadline=None, database=None)
@given(WORDS, WORDS, WORDS, WORDS)
def test_it_grows_with_what_is_kept(document, kept, more, question):
    less = query_coverage([document], [kept], question)
    assert 0.0 <= less <= query_coverage([document], [kept, more], question) <= 1.0
    assert query_coverage([document], [document], question) in (0.0, pytest.approx(1.0))
    assert query_coverage([document], [], question) == 0.0


@settings(deadline=None, database=None)
@given(st.text(), st.text(), st.text())
def test_any_text_is_taken(document, kept, question):
    assert 0.0 <= query_coverage([document], [kept], question) <= 1.0


@pytest.mark.parametrize("text", ["a ", "山", "é", "a b ", "-", "x" * 50 + " "])
def test_a_megabyte_takes_a_moment(text):
    long = text * (1_000_000 // len(text))
    begin = time.process_time()
    query_coverage([long], [long], long[:10_000])
    assert time.process_time() - begin < 10


@pytest.mark.parametrize(
    ("coverage", "trust"), [(0.0, 0.0), (0.5, 0.0), (0.625, 0.25), (0.75, 0.5), (1.0, 1.0), (1.0 + 1e-16, 1.0)]
)
def test_trust_begins_where_more_than_half_is_covered(coverage, trust):
    assert trust_of(coverage) == pytest.approx(trust)
