"""Scores against cases worked by hand, and against the reference package where there is one."""

import sys

import pytest

from rapid_integrations.errors import MissingExtraError
from rapid_integrations.evaluation.metrics import (
    ROUGES,
    exact_match,
    fact_recall,
    infinitebench_choice,
    leval_letter,
    leval_letters,
    leval_reference_letters,
    longbench_v2_letter,
    normalise,
    rouge,
    token_f1,
)


def test_normalising_as_squad_does():
    assert normalise("  The Cat's  hat, an A. ") == "cats hat"
    assert normalise("theatre a-b") == "theatre ab"  # punctuation goes first, articles only as whole words


@pytest.mark.parametrize(
    ("answer", "references", "f1", "exact"),
    [
        ("The red house", ["red house!"], 1.0, 1.0),
        ("red house on the hill", ["the red house"], 2 * (2 / 4) * 1 / (2 / 4 + 1), 0.0),  # 2 of 4 words, 2 of 2
        ("red red house", ["red house house"], 2 / 3, 0.0),  # 2 in common, each counted once
        ("blue", ["red", "blue sky"], 2 * 1 * 0.5 / 1.5, 0.0),  # the best reference counts
        ("the", ["a"], 0.0, 1.0),  # nothing is left of either: SQuAD's F1 has no word in common
        ("", ["red"], 0.0, 0.0),
    ],
)
def test_f1_and_exact_match(answer, references, f1, exact):
    assert token_f1(answer, references) == pytest.approx(f1)
    assert exact_match(answer, references) == exact


def test_f1_and_exact_match_are_squad_s():
    squad = pytest.importorskip("torchmetrics.functional.text").squad
    cases = [
        ("The red house", ["red house!"]),
        ("red house on the hill", ["the red house", "a hill"]),
        ("red red house", ["red house house"]),
        ("It's 1,234.5 (approximately), or so", ["1234.5", "its 12345 or so"]),
        ("Straße nach Köln - the A 4", ["strasse nach köln", "straße köln a4"]),
        ("", ["red"]),
        ("an answer without any word in common", ["nothing of it"]),
        ("line\none\ttwo", ["one two  line"]),
    ]
    for number, (answer, references) in enumerate(cases):
        wanted = squad(
            {"prediction_text": answer, "id": str(number)},
            {"answers": {"text": references, "answer_start": [0] * len(references)}, "id": str(number)},
        )
        assert 100 * token_f1(answer, references) == pytest.approx(float(wanted["f1"]), abs=1e-4)
        assert 100 * exact_match(answer, references) == pytest.approx(float(wanted["exact_match"]))


def test_facts_are_whole_words():
    assert fact_recall("It is 8398, and bay 12.", ["83", "12", "8398", "7"]) == 0.5
    assert fact_recall("port sarne.", ["Port Sarne"]) == 1.0


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(C) because", "C"),
        ("I think A", "A"),
        ("none", "A"),
        ("the answer is D.", "D"),
        ("", ""),
        ("CD", "CD"),
    ],
)
def test_leval_single_choice(answer, letter):
    assert leval_letter(answer) == letter


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("BD", "BD"),
        ("DB", "BD"),
        ("B", "B"),
        ("B. and D. are right", "BD"),
        ("The answers: A) and C)", "AC"),
        ("A.\n\nQuestion 2: B.", "A"),
        ("nothing", "A"),
        ("", ""),
    ],
)
def test_leval_several_choices(answer, letters):
    assert leval_letters(answer) == letters


def test_leval_references():
    assert leval_reference_letters("(B) They were caught. And (A)") == "B"
    assert leval_reference_letters("BD") == "BD"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("The correct answer is (B).", "B"),
        ("The correct answer is **C**", "C"),
        ("It is A. The correct answer is (D), not The correct answer is A", "D"),
        ("(B)", None),
        ("The correct answer is not clear", None),
    ],
)
def test_longbench_v2(answer, letter):
    assert longbench_v2_letter(answer) == letter


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B. The sea", True),
        ("C. The sea", False),
        ("The answer is: B", True),
        ("answer is the sea", True),
        ("The answer is D", False),
        ('I say "B", or C', True),
        ("The answer is", False),
        ("no idea", False),
        ("", False),
    ],
)
def test_infinitebench(answer, right):
    assert infinitebench_choice(answer, ("B", "the sea")) is right


def test_rouge_by_hand():
    pytest.importorskip("rouge_score")
    scores = rouge("the cat sat", ["the cat ran far"])
    assert scores["rouge1"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert scores["rouge2"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert scores["rougeL"] == scores["rouge1"]
    assert rouge("the cat sat", ["dogs", "the cat sat"]) == dict.fromkeys(ROUGES, 1.0)


def test_rouge_is_the_package_s():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(list(ROUGES), use_stemmer=False)
    pairs = [("A cat.\nIt ran home.", "It ran home.\nA dog and a cat."), ("", "x"), ("One two three", "three two one")]
    for answer, reference in pairs:
        wanted = scorer.score(reference, answer)
        assert rouge(answer, [reference]) == {name: wanted[name].fmeasure for name in ROUGES}


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingExtraError, check=lambda error: error.extra == "eval"):
        rouge("a", ["b"])
