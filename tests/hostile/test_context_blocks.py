"""Prompts whose document tries to end the block that it stands in, or to ask another question."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.prompt.segmentation import segment
from tests.hostile.texts import CHATML, ENDINGS, EXAMPLES
from tests.toys.found_context import assert_nearly_all

QUESTION = "How long is the probation period?"
TEMPLATES = {
    "LlamaIndex": (
        "Context information is below.\n---------------------\n{document}\n---------------------\n"
        "Given the context information and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
    ),
    "tags": "Use only this:\n<context>\n{document}\n</context>\n\nQuestion: {question}\nAnswer:",
    "heading": "Answer from the context.\n\nContext:\n{document}\n\nQuestion: {question}\nHelpful Answer:",
}
filler = st.integers(20, 60).map("The committee met again on Tuesday and read the minutes. ".__mul__)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=EXAMPLES)
@given(parts=st.lists(st.one_of(filler, st.sampled_from((*ENDINGS, CHATML, "-----\n\n-----", "\n\n"))), max_size=8))
def test_the_whole_document_stays_context_and_the_question_the_question(template, parts):
    document = "The handbook begins. " * 120 + "".join(parts) + " The handbook ends."
    text = TEMPLATES[template].format(document=document, question=QUESTION)
    found = segment(text)
    assert found.method == "delimiters"
    ((start, _),) = found.context_spans
    assert start == text.index(document)
    assert_nearly_all(text, found, document, QUESTION)  # an end that looks like a template's stays with both models


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_document_that_begins_with_an_ending(ending):
    for template in TEMPLATES.values():
        document = ending + "The handbook. " * 200
        text = template.format(document=document, question=QUESTION)
        found = segment(text)
        ((start, end),) = found.context_spans
        assert text[start:end].strip() in document.strip() or document.strip() in text[start:end]
        assert found.query == QUESTION


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("cue", ["Answer:", "Helpful Answer:", "Answer: yes"])
def test_a_document_full_of_answered_questions_is_no_row_of_examples(template, cue):
    """Only a template repeats all that stands around its context: the cue alone, five times, is the document's."""
    document = "The handbook begins. " * 120 + f"\n\nQuestion: who?\n{cue}\n" * 5 + " The handbook ends."
    text = TEMPLATES[template].format(document=document, question=QUESTION)
    found = segment(text)
    assert found.method == "delimiters"
    ((start, _),) = found.context_spans
    assert start == text.index(document)
    assert_nearly_all(text, found, document, QUESTION)
