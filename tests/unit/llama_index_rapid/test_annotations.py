"""Templates without a question: what works on all of a text, and texts that may themselves be what is asked."""

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import ChatPromptTemplate

from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS

QUESTION = f"What about {PARAGRAPHS[7][11:60]}?"


def chat_template(*messages):
    return ChatPromptTemplate([ChatMessage(role=role, content=content) for role, content in messages])


def is_plain(explained):
    return not explained.target.context_spans and explained.drafter.text == explained.target.text


@pytest.mark.parametrize("name", ["text", "document", "article", "mail"])
@pytest.mark.parametrize(
    "told", ["Extract persons.", "Translate to {language}.", "Summarize the text in a {tone} tone."]
)
def test_a_task_of_the_whole_text(llm, told, name):
    values = {name: DOCUMENT, "language": "French", "tone": "formal and polite"}
    for template in (chat_template(("system", told), ("user", f"{{{name}}}")), PromptTemplate(f"{told}\n{{{name}}}")):
        shown = {key: value for key, value in values.items() if key in template.template_vars}
        assert is_plain(llm.explain(template, **shown))


def test_a_text_that_may_be_what_is_asked(llm):
    for told in ("Answer the mail.", "You are a helpful assistant."):
        assert is_plain(llm.explain(chat_template(("system", told), ("user", "{mail}")), mail=DOCUMENT))


@pytest.mark.parametrize("name", ["mail", "text", "context_str"])
def test_a_question_in_the_system_message(llm, name):
    template = chat_template(("system", QUESTION), ("user", f"{{{name}}}"))
    explained = llm.explain(template, **{name: DOCUMENT})
    assert explained.target.contexts == (DOCUMENT,) and explained.target.query.rstrip("?") == QUESTION.rstrip("?")


@pytest.mark.parametrize("question", ["Summarize what it says.", "Translate it."])
def test_a_question_by_name_is_asked_about_what_was_retrieved(llm, question):
    template = PromptTemplate("Summarize from these sources.\n{context_str}\nQuery: {query_str}\nAnswer: ")
    explained = llm.explain(template, context_str=DOCUMENT, query_str=question)
    assert explained.target.contexts == (DOCUMENT,) and explained.target.query == question


def test_a_summary_of_retrieved_nodes_is_shortened(llm):
    explained = llm.explain(PromptTemplate("Write a summary.\n{context_str}"), context_str=DOCUMENT)
    assert explained.target.contexts == (DOCUMENT,) and explained.compression.shortened
