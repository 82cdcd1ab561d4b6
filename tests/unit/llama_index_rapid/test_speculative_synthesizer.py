"""Speculative RAG as a response synthesizer."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.llms import MockLLM

from llama_index_rapid import DocumentOrder, SpeculativeSynthesizer
from rapid_integrations import ConfigurationError

TEMPLATE = PromptTemplate("Text: {context_str}\nAbout: {query_str}\nIn {language}:")


def query_engine(index, llm, **settings):
    synthesizer = SpeculativeSynthesizer(llm, **settings)
    asked = index.as_query_engine(
        llm=llm, response_synthesizer=synthesizer, similarity_top_k=6, node_postprocessors=[DocumentOrder()]
    )
    return asked, synthesizer


@pytest.mark.parametrize("kind", ["llm", "base_llm"])
def test_a_query_engine_chooses_one_of_several_drafts(kind, index, given, request):
    asked, synthesizer = query_engine(index, request.getfixturevalue(kind), drafts=3, passages=2)
    response = asked.query("which words are in section 7?")
    found = synthesizer.latest
    assert response.response == found.text and len(response.source_nodes) == 6
    assert len(found.drafts) == len(given) == 3
    texts = [each.node.get_content() for each in response.source_nodes]
    for draft in found.drafts:
        evidence = "\n\n".join(texts[place] for place in draft.passages)
        assert any(evidence in each.target.text and each.target.query for each in given)


def test_streams_and_asynchronous_calls_give_the_same(index, llm):
    asked, _ = query_engine(index, llm, drafts=2)
    text = asked.query("which words?").response
    streaming, _ = query_engine(index, llm, drafts=2, streaming=True)
    assert "".join(streaming.query("which words?").response_gen) == text

    async def asynchronously():
        response = await streaming.aquery("which words?")
        return (await asked.aquery("which words?")).response, "".join([x async for x in response.async_response_gen()])

    with ThreadPoolExecutor(1) as thread:  # LlamaIndex's synchronous calls need this thread's own event loop
        assert thread.submit(asyncio.run, asynchronously()).result() == (text, text)


def test_a_template_of_ones_own_with_further_variables(llm, given):
    synthesizer = SpeculativeSynthesizer(llm, text_qa_template=TEMPLATE, drafts=1)
    synthesizer.get_response("which?", ["some words", "other words"], language="Latin")
    assert "Text: some words\n\nother words\nAbout: which?\nIn Latin:" in given[-1].target.text
    assert synthesizer.get_prompts() == {"text_qa_template": TEMPLATE}
    synthesizer.update_prompts({"text_qa_template": PromptTemplate("{context_str} {query_str}!")})
    synthesizer.get_response("which?", ["some words"])
    assert "some words which?!" in given[-1].target.text


def test_mistakes_are_taught(llm):
    with pytest.raises(ConfigurationError, match="takes a RapidLLM"):
        SpeculativeSynthesizer(MockLLM())
    with pytest.raises(ConfigurationError, match="draft"):
        SpeculativeSynthesizer(llm, draft=5)
