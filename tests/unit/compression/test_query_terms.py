"""Query term coverage: worked by hand, and what holds for any text."""

import math
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.compression import query_coverage, query_presence, trust_of
from tests.toys.budget import examples
from tests.toys.work import assert_linear

FILLER = "the council met " * 32


def slowly(contexts, kept, query):
    """The definition, one window after the other."""

    def paragraphs(text):
        text = unicodedata.normalize("NFKC", text).casefold()
        return [
            re.findall(r"[\u3040-\u30ff\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u4e00-\u9fff]+", part)
            for part in re.split(r"\n\s*\n", text)
        ]

    def places(text):
        """What begins at each word of a text: the word, and the pair with the next one of its paragraph."""
        for words in paragraphs(text):
            for at, word in enumerate(words):
                single = () if re.match("[\u3040-\u30ff\u4e00-\u9fff]", word) else (word,)
                yield {single, tuple(words[at : at + 2]) if at + 1 < len(words) else ()} - {()}

    asked = set().union(*places(query))
    windows = []
    for text in contexts:
        at = list(places(text))
        starts = range(0, max(1, len(at) - 32), 32) if at else ()
        windows += [set().union(*at[start : start + 64]) & asked for start in starts]
    weights = {term: math.log(len(windows) / sum(term in w for w in windows)) ** 2 for term in set().union(*windows)}
    if not sum(weights.values()):
        return 0.0
    held = set().union(*(term for text in kept for term in places(text)))
    once = math.log(max(1.0, len(windows) / 2)) ** 2
    return sum(weight for term, weight in weights.items() if term in held) / max(once, sum(weights.values()))


def test_worked_by_hand():
    # 380 words: 11 windows of 64, at 0, 32, ..., 320. "nils" (word 0) begins in the first one only; "badge" (words 40
    # and 300) in those at 0 and 32, and at 256 and 288: four.
    words = ["x"] * 380
    words[0], words[40], words[300] = "Nils", "badge", "badge."
    document = " ".join(words)
    nils, badge = math.log(11 / 1) ** 2, math.log(11 / 4) ** 2
    question = "the badge, Nils?"  # the document has neither "the" nor a pair of these
    assert query_coverage([document], ["Badge!"], question) == pytest.approx(badge / (nils + badge))
    assert query_coverage([document], ["NILS"], question) == pytest.approx(nils / (nils + badge))
    # By itself, "badge" is less than a word that occurs once, which would be in two windows.
    assert query_coverage([document], ["badge"], "badge") == pytest.approx(badge / math.log(11 / 2) ** 2)


def test_a_term_in_many_windows_counts_less():
    # Windows begin every 32 words; "rare" is in the first only, "often" in all but the last ones.
    document = "rare " + " ".join((["x"] * 15 + ["often"]) * 8) + " y" * 320
    lost_rare = query_coverage([document], ["often"], "rare often")
    lost_often = query_coverage([document], ["rare"], "rare often")
    assert 0 < lost_rare < 0.5 < lost_often < 1


def test_a_name_that_was_not_retrieved_is_what_matters():
    people = ["Nils Berg", "Ada Engel", "Nils Holm", "Mira Engel", "Ada Holm", "Mira Berg"]
    met = (
        "came to the meeting of the council. They spoke about the harbour and its dues for a while, as they had before."
    )
    document = "\n\n".join(f"{person} {met}" for person in [*people, *people, "Nils Engel", *people, *people])
    question = "What did Nils Engel say at the meeting about the harbour?"
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


def test_a_question_that_names_nothing_rare_is_not_covered_by_what_is_everywhere():
    document = " ".join(f"the council met on day {day} and noted what it was all about" for day in range(200))
    assert trust_of(query_coverage([document], [document], "What is the document about? What was noted?")) == 0.0
    assert trust_of(query_coverage([document], ["day 7"], "What was noted on day 7?")) > 0.8
    nearly_everywhere = "the council met " * 200 + "nobody came " * 40
    assert query_coverage([nearly_everywhere], [nearly_everywhere], "the council") < 0.5


def test_case_and_punctuation_do_not_matter():
    document = FILLER * 4 + " Straße, ÉCOLE: nine-to-five. " + FILLER * 4
    assert query_coverage([document], ["STRASSE école NINE to five"], "straße École nine to FIVE?") == 1.0


def test_scripts_without_spaces_are_seen_by_their_pairs():
    filler = "今日は会議で予算について話しました。" * 40
    document = filler + "山田太郎の番号は四二七です。" + filler + "山本次郎の番号は五五五です。"
    question = "山田太郎の番号は何ですか"
    assert query_coverage([document], ["山田太郎の番号は四二七です。"], question) > 0.9
    assert trust_of(query_coverage([document], ["山本次郎の番号は五五五です。"], question)) < 0.2


def test_pairs_do_not_reach_across_a_gap_between_passages():
    document = FILLER * 6 + " Nils Engel spoke. " + FILLER * 6 + " chaired by Nils. Engel wrote."
    assert query_coverage([document], ["chaired by Nils\n\nEngel wrote"], "Nils Engel") < 0.9
    assert query_coverage([document], ["chaired by Nils\nEngel wrote"], "Nils Engel") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("Zoe\u0308 Mu\u0308ller", "Zoë Müller"),
        ("अनिल शर्मा", "अनिल शर्मा"),
        ("_Nils Engel_", "Nils Engel"),
        ("１２３４", "1234"),
    ],
)
def test_the_same_word_in_another_spelling_of_unicode(there, asked):
    document = FILLER * 6 + f" {there} " + FILLER * 6
    assert query_coverage([document], [there], asked) == pytest.approx(1.0)
    assert query_coverage([document], ["अन ल"], "अनिल शर्मा") == 0.0


def test_contexts_count_together_and_pairs_do_not_reach_from_one_to_the_next():
    first, second = FILLER * 3 + " red", "apple " + FILLER * 3
    assert query_coverage([first, second], ["red", "apple"], "red apple") == 1.0
    assert query_coverage([first + " apple", second], ["red", "apple"], "red apple") < 1.0
    assert query_coverage(["", first, " ", second], ["red", "apple"], "red apple") == 1.0


PIECES = st.sampled_from(["alpha", "beta.", "Gamma", "delta", "the", "of", "山", "田", "\n\n", "..."])
TEXTS = st.lists(PIECES, max_size=200).map(" ".join)


@settings(max_examples=examples(300))
@given(st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=2), TEXTS, TEXTS)
def test_it_is_the_definition_and_grows_with_what_is_kept(contexts, kept, more, question):
    less = query_coverage(contexts, kept, question)
    assert less == pytest.approx(slowly(contexts, kept, question))
    assert 0.0 <= less <= query_coverage(contexts, [*kept, more], question) <= 1.0 + 1e-12
    assert query_coverage(contexts, [], question) == 0.0


@given(st.text(), st.text(), st.text())
def test_any_text_is_taken(document, kept, question):
    assert 0.0 <= query_coverage([document], [kept], question) <= 1.0 + 1e-12


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize("text", ["a ", "山", "é", "a b ", "-", "x" * 50 + " "])
def test_a_long_text_takes_linear_time(text):
    assert_linear(
        lambda long: query_coverage([long], [long], long[:10_000]), lambda size: text * (size // len(text)), 400_000
    )


@pytest.mark.parametrize(
    ("coverage", "trust"), [(0.0, 0.0), (0.5, 0.0), (0.625, 0.25), (0.75, 0.5), (1.0, 1.0), (1.0 + 1e-16, 1.0)]
)
def test_trust_begins_where_more_than_half_is_covered(coverage, trust):
    assert trust_of(coverage) == pytest.approx(trust)


# --- the words that the documents have at all -------------------------------------------------------------------------


def test_presence_by_hand():
    # 96 words are two windows (0-63, 32-95); "keeps" and "locker" are in the second only, "nils" nowhere.
    text = "a b " * 47 + "keeps locker"
    rare, absent = math.log(2 / 1) ** 2, math.log(max(1.0, 2 / 2)) ** 2
    assert absent == 0.0 and query_presence([text], "nils keeps locker") == pytest.approx(
        2 * rare / (2 * rare + absent)
    )
    longer = FILLER * 4 + "keeps"  # 385 words: 12 windows, so that an absent word weighs log(6) squared
    rare, absent = math.log(12 / 1) ** 2, math.log(6) ** 2
    assert query_presence([longer], "nils keeps") == pytest.approx(rare / (rare + absent))


def test_presence_without_weights_counts_words():
    assert query_presence(["a short text"], "short and long") == pytest.approx(1 / 3)
    assert query_presence(["a short text"], "") == query_presence([], "who?") == query_presence([""], "who?") == 0.0


def test_presence_in_scripts_without_spaces_is_of_pairs():
    assert query_presence(["\u6771\u4eac\u306f\u9996\u90fd"], "\u6771\u4eac\u304c") == pytest.approx(1 / 2)


@given(words=st.lists(st.sampled_from("nils keeps locker seven the council".split()), min_size=1, max_size=6))
@settings(max_examples=examples(50))
def test_presence_is_a_share_and_whole_for_the_text_itself(words):
    question = " ".join(words)
    assert query_presence([FILLER + question], question) == pytest.approx(1.0)
    assert 0.0 <= query_presence([FILLER], question) <= 1.0


def test_presence_takes_linear_time():
    text = "the council met nils "
    assert_linear(lambda long: query_presence([long], long[:10_000]), lambda size: text * (size // len(text)), 400_000)
