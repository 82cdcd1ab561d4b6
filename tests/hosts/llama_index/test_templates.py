"""Every prompt of llama-index-core: what each of the two models is given of it."""

import importlib
import pkgutil
import re

import llama_index.core
import pytest
from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.default_prompts import DEFAULT_HYDE_PROMPT
from llama_index.core.prompts.rich import RichPromptTemplate
from llama_index.core.schema import NodeWithScore

from llama_index_rapid.template_variables import DOCUMENTS, QUESTIONS
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS, nodes

QUESTION = f"What about {PARAGRAPHS[7][11:60]}?"
NOT_PROMPTS = ("DEFAULT_MEMORY_BLOCKS_TEMPLATE", "DEFAULT_RETRIEVED_TEXT_TEMPLATE")  # parts of others
_VARIABLE = re.compile(r"(?<!{){([a-zA-Z_]\w*)}(?!})")


def templates():
    """Return each template of the package once, those kept as strings included."""
    found = {}
    for module in pkgutil.walk_packages(llama_index.core.__path__, "llama_index.core."):
        if module.name.endswith("__main__") or ".benchmarks" in module.name:
            continue
        try:
            names = vars(importlib.import_module(module.name))
        except ImportError:
            continue
        for name, value in names.items():
            if isinstance(value, str) and name.isupper() and len(value) > 80 and _VARIABLE.search(value):
                value = PromptTemplate(value)
            if isinstance(value, BasePromptTemplate) and name not in NOT_PROMPTS and value.template_vars:
                found.setdefault(value.get_template(), pytest.param(value, id=f"{module.name[17:]}.{name}"))
    return list(found.values())


def value_of(name):
    if name == "context_messages":
        return [ChatMessage(role="user", content=paragraph) for paragraph in PARAGRAPHS]
    if name in DOCUMENTS:
        return DOCUMENT
    return QUESTION if name in QUESTIONS else f"[the {name}]"


MARK = "[[here stands a document]]"


def own_texts(template, llm, values, documents):
    """Return what LlamaIndex itself renders, less of the documents, piece by piece."""
    marked = dict.fromkeys(documents, MARK)
    if "context_messages" in marked:
        marked["context_messages"] = [ChatMessage(role="user", content=MARK)] * len(PARAGRAPHS)
    if llm.metadata.is_chat_model:
        texts = [message.content for message in template.format_messages(llm=llm, **{**values, **marked})]
    else:
        texts = [template.format(llm=llm, **{**values, **marked})]
    return [piece.strip() for text in texts for piece in text.split(MARK)]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("kind", ["chat", "base"])
@pytest.mark.parametrize("template", templates())
def test_of_each_prompt_only_the_document_is_shortened(llm, base_llm, template, kind):
    used = llm if kind == "chat" else base_llm
    if isinstance(template, RichPromptTemplate) and kind == "base":
        pytest.skip("LlamaIndex gives it to chat models only")
    values = {name: value_of(name) for name in template.template_vars}
    explained = used.explain(template, **values)
    asks_by_context = template.get_template() == DEFAULT_HYDE_PROMPT.get_template()
    documents = [name for name in values if name in DOCUMENTS and not asks_by_context]
    expected = []
    for name in documents:
        expected += PARAGRAPHS if name == "context_messages" else [DOCUMENT]
    assert list(explained.target.contexts) == expected
    # The drafter reads the same text, less of the documents: instructions, format, labels, question, other values.
    rest = explained.drafter.text
    for text, kept in zip(explained.target.contexts, explained.drafter.contexts, strict=True):
        assert all(part.strip() in text for part in kept.split("\n\n"))
    position = 0
    for piece in own_texts(template, used, values, documents):
        position = rest.find(piece, position) + len(piece)
        assert position >= len(piece), piece
    if documents:
        assert explained.target.segmentation == "template" and explained.compression.shortened
        assert len(explained.drafter.text) < len(explained.target.text) - len(DOCUMENT) / 2
        if any(name in QUESTIONS for name in values):
            assert explained.target.query == QUESTION and PARAGRAPHS[7] in rest
    else:
        assert explained.drafter.text == explained.target.text


@pytest.mark.parametrize("kind", ["chat", "base"])
async def test_a_reranker_shows_the_drafter_format_question_and_every_label(llm, base_llm, given, kind):
    used = llm if kind == "chat" else base_llm
    found = [NodeWithScore(node=node, score=0.5) for node in nodes()]
    reranker = LLMRerank(llm=used, choice_batch_size=12)
    reranker.postprocess_nodes(found, query_str=QUESTION)
    await reranker.apostprocess_nodes(found, query_str=QUESTION)
    for request in given:
        drafter, target = request.drafter.text, request.target.text
        assert len(drafter) < len(target) / 1.5 and request.target.query == QUESTION
        for said in ("relevance score is a number from 1-10", "Doc: 9, Relevance: 7", f"Question: {QUESTION}"):
            assert said in drafter
        if kind == "chat":
            assert request.target.contexts == tuple(PARAGRAPHS)
            assert all(f"Document {number}:" in drafter for number in range(1, 13))
    assert len({request.target.text for request in given}) == 1


def test_a_document_whose_words_stand_in_the_instruction_too(llm):
    template = PromptTemplate("Use a number from 1 to 10.\nNumber: {first}\n{context_str}\nQuestion: {query_str}")
    explained = llm.explain(template, first="10", context_str="10", query_str="1 to 10?")
    (span,) = explained.target.context_spans
    assert explained.target.text[: span[0]].endswith("Number: 10\n")


def test_documents_of_a_template_written_in_jinja(llm):
    template = RichPromptTemplate(
        "Answer from these:\n{% for document in documents %}[{{ loop.index }}] {{ document }}\n{% endfor %}"
        "Asked by a user: {{ question }}"
    )
    explained = llm.explain(template, documents=PARAGRAPHS, question=QUESTION)
    assert explained.target.contexts == tuple(PARAGRAPHS) and explained.target.query == QUESTION
    assert all(f"[{number}] " in explained.drafter.text for number in range(1, 13))


def test_documents_that_are_nodes_are_found_by_their_texts(llm):
    template = RichPromptTemplate("{% for node in nodes %}* {{ node.text | upper | lower }}\n{% endfor %}{{ query }}")
    lower = [paragraph.lower() for paragraph in PARAGRAPHS]
    explained = llm.explain(template, nodes=nodes(lower), query=QUESTION)
    assert explained.target.contexts == tuple(lower)


def test_a_function_of_a_template_makes_the_document(llm):
    def bullets(**values):
        return "\n".join(f"- {paragraph}" for paragraph in values["context_str"].split("\n\n"))

    template = PromptTemplate("{context_str}\nQ: {query_str}", function_mappings={"context_str": bullets})
    explained = llm.explain(template, context_str=DOCUMENT, query_str=QUESTION)
    assert explained.target.contexts == (bullets(context_str=DOCUMENT),)


def test_a_long_schema_or_history_is_no_document(llm):
    for name in ("schema", "chat_history", "context_list", "rules", "style_guide", "fewShotExamples", "systemMessage"):
        template = PromptTemplate("Rules come first.\n\n{" + name + "}\n\nQuestion: {query_str}\nSQL: ")
        explained = llm.explain(template, query_str=QUESTION, **{name: DOCUMENT})
        assert explained.target.context_spans == () and explained.drafter.text == explained.target.text


def test_a_document_in_the_template_itself_or_in_the_question_is_looked_for(llm):
    text = f"Context:\n{DOCUMENT}\n\nQuestion: "
    for template, question in ((text + "{query_str}", QUESTION), ("{query_str}", text + QUESTION)):
        explained = llm.explain(PromptTemplate(template), query_str=question)
        assert explained.target.contexts == (DOCUMENT,) and explained.target.segmentation == "delimiters"


def test_a_template_that_is_all_document_is_a_plain_prompt(llm):
    assert llm.explain(PromptTemplate("{text}"), text="hello").target.context_spans == ()
