"""The passages that an answer rests on."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rapid_integrations.compression.sources import RecentSources, SourceFinder, sentences
from tests.toys.models import words

FILLER = [f"{words(seed, 24).capitalize()}." for seed in range(40)]
FACTS = {
    7: "The harbour of Vikstad was built by Ane Lorentzen in 1874.",
    21: "Vikstad's lighthouse burned down twice, and Tobias Krag rebuilt it from granite.",
    33: "The town's railway reached Ostby only after the second war.",
}
DOCUMENT = " ".join(FACTS.get(number, sentence) for number, sentence in enumerate(FILLER))


def fact(number):
    start = DOCUMENT.index(FACTS[number])
    return start, start + len(FACTS[number])


def holds(source, number):
    start, end = fact(number)
    return source.start <= start and end <= source.end


def test_each_sentence_has_the_passage_that_it_was_drawn_from():
    answer = "The harbour was built by Ane Lorentzen. Tobias Krag rebuilt the lighthouse from granite."
    first, second = SourceFinder((DOCUMENT,)).find(answer, "Who built what in Vikstad?")
    assert holds(first, 7) and holds(second, 21)
    for source, sentence in ((first, "The harbour was built by Ane Lorentzen."), (second, answer.split(". ")[1])):
        assert answer[source.answer_start : source.answer_end] == sentence
        assert DOCUMENT[source.start : source.end] == source.text and source.context == 0
        assert 0.5 < source.score <= 1


def test_one_sentence_over_two_facts_has_both_passages():
    answer = "Ane Lorentzen built the harbour, and Tobias Krag rebuilt the lighthouse from granite"
    found = SourceFinder((DOCUMENT,)).find(answer, "Who built what?")
    assert len(found) == 2 and {7, 21} == {n for n in FACTS for source in found if holds(source, n)}
    assert {(source.answer_start, source.answer_end) for source in found} == {(0, len(answer))}
    assert sum(source.score for source in found) <= 1 and found[0].score >= found[1].score > 0


def test_what_the_contexts_do_not_say_has_no_source():
    finder = SourceFinder((DOCUMENT,))
    assert finder.find("Cheesecake recipes use Philadelphia and lemon zest.", "What is cheesecake?") == ()
    assert finder.find("Yes.", "Did Ane Lorentzen build the harbour?") == ()


def test_the_question_says_which_of_two_equal_passages_is_meant():
    text = "The mill at Ravna cost forty crowns. " + " ".join(FILLER) + " The bridge at Solva cost forty crowns."
    finder = SourceFinder((text,))
    for name in ("mill at Ravna", "bridge at Solva"):
        (source,) = finder.find("Forty crowns.", f"What was paid for the {name}?")
        assert name in source.text


@pytest.mark.parametrize(
    ("answer", "defined"),
    [
        ("drain_tank", "def drain_tank(amount):"),
        ("`drain_tank`", "def drain_tank(amount):"),
        ("drain_tank()", "def drain_tank(amount):"),
        ("WaterMeter", "class WaterMeter(Meter):"),
        ("readMeter", "function readMeter(address) {"),
    ],
)
def test_a_name_in_code_rests_on_its_definition(answer, defined):
    uses = "Call drain_tank before readMeter, and drain_tank again if a WaterMeter asks: see drain_tank and readMeter."
    text = "\n\n".join([uses, *FILLER[:20], defined + "\n    pass", *FILLER[20:], uses])
    source, *_ = SourceFinder((text,)).find(answer, "Which one in this code empties it?")
    assert defined.split("(")[0] in source.text


def test_contexts_are_kept_apart_and_labels_are_told():
    first = "Source 1:\n" + FACTS[7] + " " + FILLER[0] + "\n\nSource 2:\n" + FACTS[33]
    finder = SourceFinder((DOCUMENT[: fact(7)[0]], first))
    (source,) = finder.find("The railway reached Ostby after the second war.", "When did the railway come?")
    assert source.context == 1 and source.label == "Source 2:" and first[source.start : source.end] == source.text
    (unlabelled,) = SourceFinder((DOCUMENT,)).find("Ane Lorentzen built the harbour.", "Who?")
    assert unlabelled.label is None


def test_scripts_without_spaces():
    text = "会議は大阪で開かれた。" * 20 + "橋は一九二三年に田中次郎が設計した。" + "駅は町の北にある。" * 20
    (source, *_) = SourceFinder((text,)).find("設計したのは田中次郎です。", "橋を設計したのは誰ですか。")
    assert "田中次郎" in source.text


@pytest.mark.parametrize("text", ["", "  \n ", "x", "a" * 5000, "no end " * 900, "\r\n\r\nOne. Two!\u2029Three?” Four"])
def test_sentences_tile_a_text_but_for_white_space(text):
    cuts = list(sentences(text))
    assert "".join("".join(text[start:end] for start, end in cuts).split()) == "".join(text.split())
    assert all(text[start:end].strip() == text[start:end] != "" for start, end in cuts)
    assert all(end - start <= 600 for start, end in cuts)


def test_nothing_to_look_in_or_for():
    recent = RecentSources()
    assert recent.find((), "what?", "an answer") == () == recent.find((DOCUMENT,), "what?", " \n")
    assert recent.find(("",), "what?", "an answer") == () == recent.find(("...",), "what?", "an answer")


def test_threads_share_an_index_and_a_second_question_is_quick():
    recent, long = RecentSources(), " ".join([DOCUMENT] * 60)
    answers = [f"Ane Lorentzen built the harbour {number}." for number in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda answer: recent.find((long,), "Who built it?", answer), answers))
    assert all(len(each) >= 1 for each in found)
    begin = time.thread_time()
    again = recent.find((long,), "Who built it?", answers[0])
    assert again == found[0] and time.thread_time() - begin < 1  # it takes some milliseconds; indexing takes longer
