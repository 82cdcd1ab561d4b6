"""Thinking at the beginning of an answer is told apart, however the answer comes in pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from rapid_integrations.models.thinking import Thinking
from rapid_integrations.models.thinking_marks import Marks, marks_of
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.outputs import CompletionChunk, Source
from rapid_integrations.prompt import render
from tests.toys.budget import examples
from tests.toys.call_templates import HARMONY
from tests.toys.chat_templates import QWEN3, QWEN25
from tests.toys.models import EOS_ID, byte_tokenizer
from tests.toys.thinking import OPENED

MARKS, OPEN = Marks("<think>", "</think>"), Marks("<think>", "</think>", opened=True)


def told(pieces, marks=MARKS, sources=()):
    """Return thinking, answer and sources of an answer in pieces."""
    splitting = Thinking(marks)
    chunks = [CompletionChunk(text=text, token_ids=()) for text in pieces]
    chunks.append(CompletionChunk(text="", token_ids=(), finish_reason="eos", sources=sources))
    parts = [splitting.part(chunk) for chunk in chunks]
    return "".join(part for part, _ in parts), "".join(chunk.text for _, chunk in parts), parts[-1][1].sources


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>\nIt is\n\nlate.\n</think>\n\nGo home.\n", "It is\n\nlate.", "Go home.\n"),
        ("\n <think>a</think>b", "a", "b"),
        ("<think>\n\n</think>\n\nb", "", "b"),
        ("<think>cut off ", "cut off", ""),
        ("<think>cut </thin", "cut </thin", ""),
        ("<think>a</think>", "a", ""),
        ("<think>a < b </ think></think>c</think>d", "a < b </ think>", "c</think>d"),
        (" Plain <think>a</think>", "", " Plain <think>a</think>"),
        ("<thin", "", "<thin"),
        ("<thinking>a</think>", "", "<thinking>a</think>"),
        ("  ", "", "  "),
        ("", "", ""),
    ],
)
def test_the_beginning_of_an_answer_is_thinking_if_it_is_marked(text, thinking, answer):
    assert told([text])[:2] == (thinking, answer)
    assert told(list(text))[:2] == (thinking, answer)


def test_a_prompt_may_have_begun_it():
    assert told(["It is late.\n</th", "ink>\n", "\nGo."], OPEN)[:2] == ("It is late.", "Go.")
    assert told(["It is late."], OPEN)[:2] == ("It is late.", "")
    assert told(["<think>a</think>b"], None)[:2] == ("", "<think>a</think>b")


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "think>", "a", " ", "\n", "b c"]), max_size=12),
    st.lists(st.integers(0, 60), max_size=8),
    st.booleans(),
)
@settings(max_examples=examples(300), deadline=None)
def test_pieces_say_what_the_whole_says(words, cuts, opened):
    text = "".join(words)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in zip(places, places[1:], strict=False)]
    marks = OPEN if opened else MARKS
    source = Source(answer_start=0, answer_end=len(text), context=0, start=0, end=1, text="x", label=None, score=1.0)
    sources = [source.model_copy(update={"answer_start": at}) for at in range(len(text))]
    thinking, answer, kept = told(pieces, marks, sources)
    assert (thinking, answer) == told([text], marks)[:2]
    assert text.endswith(answer) and thinking in text
    begin = len(text) - len(answer)  # a source of the answer is where it was in the whole text
    assert [each.answer_start for each in kept] == list(range(len(answer)))
    assert all(each.answer_end == len(text) - begin for each in kept)


def prompt_of(template, text="hi", **options):
    vocabulary = Vocabulary(byte_tokenizer(chat_template=template, **options), [EOS_ID])
    return vocabulary, render(text, vocabulary.chat_template)


def test_the_template_has_to_know_the_mark():
    assert marks_of(*prompt_of(QWEN3)) == MARKS and marks_of(*prompt_of(OPENED)) == OPEN
    assert marks_of(*prompt_of(QWEN25)) is None
    seed = "{{ messages[0].content }}{% if false %}<seed:think></seed:think>{% endif %}"
    assert marks_of(*prompt_of(seed)) == Marks("<seed:think>", "</seed:think>")
    vocabulary = Vocabulary(byte_tokenizer(chat_template=QWEN3), [EOS_ID])
    assert marks_of(vocabulary, render("<think>", None)) is None  # without the template nothing is known


def test_a_text_of_the_user_opens_nothing():
    ends_with_text = "{{ messages[0].content }}{% if false %}<think></think>{% endif %}"
    assert marks_of(*prompt_of(ends_with_text, "What is <think>")) == MARKS


def test_tokens_of_their_own_are_marks_as_long_as_a_text_shows_them():
    tokenizer = byte_tokenizer(chat_template=QWEN3)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")])
    vocabulary = Vocabulary(tokenizer, [EOS_ID])
    assert marks_of(vocabulary, render("hi", vocabulary.chat_template)) == MARKS  # as Qwen3's tokenizer has them


def test_control_tokens_are_marks_too():
    """The engine keeps them in its text, so that they can be seen."""
    assert marks_of(*prompt_of(QWEN3, extra_tokens=("<think>", "</think>"))) == MARKS


CHANNELS = marks_of(*prompt_of(HARMONY))
FINAL = "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        (f"<|channel|>analysis<|message|>It is late.<|end|>{FINAL}Go.", "It is late.", "Go."),
        ("<|channel|>final<|message|>Go.", "", "Go."),
        ("<|channel|>commentary<|message|>I look.", "", "I look."),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>"
            + FINAL
            + "c",
            "a\nb",
            "c",
        ),
        ("<|channel|>analysis<|message|>cut", "cut", ""),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant", "a", ""),  # a call was cut out behind it
        ("Go. <|channel|>", "", "Go. <|channel|>"),
    ],
)
def test_channels(text, thinking, answer):
    assert told([text], CHANNELS)[:2] == (thinking, answer)
    assert told(list(text), CHANNELS)[:2] == (thinking, answer)


GRANITE = Marks("<think>", "</think>", headers=("<response>",), trailer="</response>")


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>a</think>\n<response>b</response>", "a", "b"),
        ("<response>b < c</response>\n", "", "b < c"),
        ("<think>a</think>b </resp", "a", "b </resp"),
        ("<think>a</think>b </response> c", "a", "b </response> c"),
    ],
)
def test_marks_around_the_answer(text, thinking, answer):
    assert told([text], GRANITE)[:2] == (thinking, answer)
    assert told(list(text), GRANITE)[:2] == (thinking, answer)


def test_sources_behind_a_header_have_their_places_in_the_answer():
    text = f"<|channel|>analysis<|message|>a<|end|>{FINAL}Go."
    source = Source(answer_start=len(text) - 3, answer_end=len(text), context=0, start=0, end=1, text="x", label=None,
                    score=1.0)  # fmt: skip
    assert told([text], CHANNELS, [source])[2][0].answer_start == 0
