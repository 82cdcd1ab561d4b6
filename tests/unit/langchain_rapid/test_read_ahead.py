"""Documents that are read when they are indexed, for the questions of a chain."""

import asyncio
from functools import partial

import pytest
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda

from langchain_rapid import ChatRapid, RapidLLM, aread_ahead, in_document_order, read_ahead
from rapid_integrations import ConfigurationError, PromptError
from tests.toys.langchain_llms import DOCUMENT, make_engine

CHAT = ChatPromptTemplate([("system", "Answer briefly."), ("human", "Context: {context}\n\nQuestion: {question}")])
TEXT = PromptTemplate.from_template("Context: {context}\n\nQuestion: {question}\nAnswer:")


def lookup(word: str) -> str:
    """Look a word up."""
    return word


@pytest.fixture
def own():
    with make_engine(prefix_cache_bytes=2**28) as engine:
        yield engine


@pytest.mark.parametrize(("kind", "prompt"), [(ChatRapid, CHAT), (ChatRapid, TEXT), (RapidLLM, TEXT), (RapidLLM, CHAT)])
def test_a_chain_finds_the_document_read(own, seen, kind, prompt):
    llm = kind(engine=own)
    done = read_ahead(llm, prompt, {"context": DOCUMENT})
    assert done.tokens > len(DOCUMENT) and done.in_memory
    (entry,) = own._prefixes.memory._entries
    for question in ("which words?", "7?"):
        (prompt | llm).invoke({"context": DOCUMENT, "question": question})
    assert [each.target_ids[: done.tokens] for each in seen] == [list(entry.token_ids)] * 2


def test_bound_tools_belong_to_the_prompt(own, seen):
    llm = ChatRapid(engine=own).bind_tools([lookup])
    done = asyncio.run(aread_ahead(llm, CHAT, {"context": DOCUMENT}))
    (entry,) = own._prefixes.memory._entries
    (CHAT | llm).invoke({"context": DOCUMENT, "question": "which?"})
    assert seen[-1].target_ids[: done.tokens] == list(entry.token_ids)
    assert "lookup" in seen[-1].target.text[: done.tokens]


def test_mistakes_are_taught(own):
    with pytest.raises(ConfigurationError, match="takes a ChatRapid or RapidLLM"):
        read_ahead(RunnableLambda(str), CHAT, {"context": DOCUMENT})
    backwards = PromptTemplate.from_template("Question: {question}\n\nContext: {context}")
    with pytest.raises(PromptError, match="Put the documents first"):
        read_ahead(RapidLLM(engine=own), backwards, {"context": DOCUMENT})


def test_the_oldest_files_come_first():
    dates = {"a.md": "2026-03-01", "b.md": "2024-01-01", "c.md": "2025-01-01"}
    documents = [
        Document(name, metadata={"source": name, "last_modified": date, "start_index": start})
        for start in (9, 0)
        for name, date in dates.items()
    ]
    ordered = partial(in_document_order, oldest_first=True)(documents)
    assert [each.page_content for each in ordered] == ["b.md", "b.md", "c.md", "c.md", "a.md", "a.md"]
    assert [each.metadata["start_index"] for each in ordered] == [0, 9] * 3
    assert [each.page_content for each in in_document_order(documents)][:2] == ["a.md"] * 2
