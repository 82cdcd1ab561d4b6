"""A megabyte of anything is read in seconds: nothing in the way of a document costs more than linear time."""

import pytest

from rapid_integrations.compression import chunk_text
from rapid_integrations.compression.windows import Windows
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import Prompt, render
from rapid_integrations.prompt.segmentation import segment
from tests.hostile.texts import KINDS
from tests.toys.models import EOS_ID, byte_tokenizer
from tests.toys.work import assert_linear, seconds

MERGES = (("a", "a"), ("aa", "aa"), ("t", "h"), ("<", "|"))


def templates(document):
    return (
        document,
        f"Context:\n{document}\n\nQuestion: why?",
        f"-----\n{document}\n-----\nQuery: why?\nAnswer:",
        f"<context>\n{document}\n</context>\nwhy?",
    )


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("size", [50_000, pytest.param(200_000, marks=pytest.mark.hostile)])
@pytest.mark.parametrize("kind", KINDS)
def test_segmentation_is_linear(kind, size):
    """A quadratic rule took minutes for 200,000 opening tags, and for an answer before so many spaces."""
    for template in range(4):
        assert_linear(segment, lambda size, template=template: templates(KINDS[kind](size))[template], size)


@pytest.mark.parametrize("kind", ["control tokens", "short lines", "one letter", "broken UTF-8", "NUL bytes"])
def test_reading_twenty_thousand_characters(kind):
    assert_linear(read, KINDS[kind], 20_000)


@pytest.mark.hostile
@pytest.mark.parametrize("kind", KINDS)
def test_reading_a_megabyte(kind):
    assert_linear(read, KINDS[kind], 1_000_000)


def read(document):
    """Do everything to a document that is done before a model reads it."""
    mine = Vocabulary(byte_tokenizer(merges=MERGES), [EOS_ID])
    for text in templates(document):
        segment(text)
    prompt = Prompt.from_context(document if document.strip() else document + "x", "why?")
    mine.encode_prompt(render(prompt, mine.chat_template))
    windows = Windows(mine._backend, 254)
    for chunk in chunk_text(document, mine):
        windows.split(chunk.text)


@pytest.mark.parametrize("unit", [b"\xff", b"\xef\xbf\xbd", b"a", "🙂".encode()])
def test_an_answer_of_ten_thousand_tokens(unit):
    def answer(written):
        text = TextStream(lambda ids: bytes(ids).decode("utf-8", "replace"), ("aab", "🙂" * 50, "b" * 1000))
        for byte in written:
            text.push(byte)
        text.finish()

    assert_linear(answer, lambda size: (unit * size)[:size], 10_000)


def test_ten_thousand_documents():
    mine = Vocabulary(byte_tokenizer(chat_template=None), [EOS_ID])

    def build(documents):
        rendered = render(Prompt.from_context(documents, "why?"), None)
        rendered.splice(["cat"] * len(documents))
        mine.encode_prompt(rendered)

    assert_linear(build, lambda size: ["the cat sat on a mat"] * size, 10_000)


MARKS = {
    "labels": "Context: a\nQuestion: b\nAnswer: c\n\n",
    "questions and answers": "Q: a?\n\nA: b\n\n",
    "tags": "<document>a</document>\n",
    "headings": "## Context\n\n## Question\n\n",
    "fences": "'''\n\n",
    "passages": "Source 1:\n",
    "JSON": '{"context": "',
    "comments": "<!-- context start -->\n",
    "CJK labels": "上下文：a\n",
    "imperatives": "Answer the following question. ",
}


@pytest.mark.hostile
@pytest.mark.parametrize("name", MARKS)
def test_a_megabyte_of_marks_takes_four_times_a_quarter_of_it(name):
    def segmented(size):
        document = MARKS[name] * (size // len(MARKS[name]))
        texts = (*templates(document), f"Question: why?\nContext: {document}\nAnswer:", f"Use this text.\n\n{document}")
        return sum(seconds(segment, text) for text in texts)

    segmented(50_000)
    assert segmented(1_000_000) < 8 * max(0.1, segmented(250_000))
