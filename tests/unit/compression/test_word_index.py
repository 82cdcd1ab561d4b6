import math
import random

import numpy as np
import pytest

from rapid_integrations.compression.word_index import WordIndex, index_terms
from rapid_integrations.compression.words import words_of


def test_inflected_forms_share_a_term():
    assert index_terms("Retrieved RETRIEVAL retrieving") == ["retri"] * 3
    assert index_terms("cat Cats") == ["cat", "cats"]


def test_words_with_digits_stay_whole():
    assert index_terms("MK18AB77 1234567") == ["mk18ab77", "1234567"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("東京都", ["東京", "京都"]),
        ("東 a 京都", ["東", "a", "京都"]),
        ("京", ["京"]),
        ("京a", ["京", "a"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("", []),
        (" \n\t…!?", []),
        ("ﬁnal Ⅷ", ["final", "viii"]),
        ("naïve", ["naïve"]),
        ("\ud800lone", ["lone"]),
    ],
)
def test_terms_of_any_script(text, terms):
    assert index_terms(text) == terms


def test_words_of_mixed_scripts():
    assert words_of("Straße 東京 x_y") == ["strasse", "東", "京", "x", "y"]


def test_the_text_with_the_rare_word_scores_best():
    index = WordIndex(["the cat sat", "the dog sat", "the cat ran", ""])
    scores = index.scores(index_terms("the dog"))
    assert scores.shape == (4,) and scores.dtype == np.float64
    assert int(scores.argmax()) == 1 and scores[3] == 0.0
    assert scores[1] > scores[0] > 0


def test_scores_are_lucenes_bm25():
    texts = ["a b", "b b c", "c"]
    scores = WordIndex(texts).scores(["b"])
    mean = (2 + 3 + 1) / 3
    weight = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    for text, score in zip(texts, scores, strict=True):
        count, length = text.split().count("b"), len(text.split())
        assert score == pytest.approx(weight * count / (count + 1.5 * (0.25 + 0.75 * length / mean)), abs=1e-6)


@pytest.mark.parametrize("texts", [[], [""], ["", " "], ["!", "?"]])
def test_texts_without_words(texts):
    assert WordIndex(texts).scores(["a"]).tolist() == [0.0] * len(texts)


def test_a_question_of_unknown_words():
    index = WordIndex(["one two", "three"])
    assert index.scores(["four"]).tolist() == index.scores([]).tolist() == [0.0, 0.0]


def test_an_empty_string_is_no_term():
    assert "" not in index_terms("a  b")
    assert WordIndex(["a"]).scores([""]).tolist() == [0.0]


def test_a_large_text_of_one_word():
    assert WordIndex(["word " * 100_000, "other"]).scores(["word"])[0] > 0


def test_names_link_texts():
    texts = [f"zeta omega common other{number}" if number < 2 else f"common text{number}" for number in range(30)]
    index = WordIndex(texts)
    assert index.names_in(0, {"zeta"}) == ["omega"]
    assert index.names_in(0, set()) == ["zeta", "omega"]
    assert index.names_in(5, set()) == []


@pytest.mark.parametrize("number", [1, 3, 60])
def test_scores_are_those_of_bm25s_to_the_last_bit(number):
    import bm25s

    generator = random.Random(number)
    words = [f"w{index}" for index in range(90)]
    texts = [" ".join(generator.choices(words, k=generator.randrange(80))) for _ in range(number)]
    ours, theirs = WordIndex([*texts, "", "w1 w1"]), bm25s.BM25(method="lucene")
    theirs.index([list(terms) for terms in ours.terms], create_empty_token=False, show_progress=False)
    for _ in range(20):
        asked = generator.choices(words, k=7)
        known = theirs.get_tokens_ids(asked)
        expected = theirs.get_scores_from_ids(known) if known else np.zeros(number + 2)
        assert ours.scores(asked).tolist() == expected.tolist()
