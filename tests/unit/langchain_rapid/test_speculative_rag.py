"""Speculative RAG as the last link of a chain."""

import asyncio

import pytest
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from langchain_rapid import ChatRapid, RapidLLM, in_document_order, speculative_rag
from rapid_integrations import ConfigurationError
from tests.toys.models import words

CHAT = ChatPromptTemplate([("system", "Be brief."), ("human", "Context: {context}\n\nQuestion: {question}")])
TEXT = PromptTemplate.from_template("Context: {context}\n\nQuestion: {question}\nAnswer:")
DOCUMENTS = [Document(words(seed, 8), metadata={"start_index": seed}) for seed in range(6)]
RETRIEVER = RunnableLambda(lambda question: DOCUMENTS[::-1])


@pytest.mark.parametrize(("kind", "prompt"), [(ChatRapid, CHAT), (ChatRapid, TEXT), (RapidLLM, TEXT), (RapidLLM, CHAT)])
def test_a_chain_chooses_one_of_several_drafts(engine, seen, kind, prompt):
    inputs = {"context": RETRIEVER | in_document_order, "question": RunnablePassthrough()}
    llm = kind(engine=engine)
    found = (inputs | speculative_rag(llm, prompt, drafts=3, passages=2, return_drafts=True)).invoke("which words?")
    assert len(found.drafts) == len(seen) == 3
    for draft in found.drafts:
        text = "\n\n".join(DOCUMENTS[place].page_content for place in draft.passages)
        assert any(f"Context: {text}\n\nQuestion: which words?" in each.target.text for each in seen)
    chain = inputs | speculative_rag(llm, prompt, drafts=3, passages=2)
    assert chain.invoke("which words?") == asyncio.run(chain.ainvoke("which words?")) == found.text


def test_bound_settings_are_those_of_the_drafts(engine):
    link = speculative_rag(RapidLLM(engine=engine).bind(max_tokens=2), TEXT, return_drafts=True)
    values = {"context": [each.page_content for each in DOCUMENTS], "question": "7?"}
    assert all(len(draft.completion.token_ids) <= 2 for draft in link.invoke(values).drafts)
    assert all(len(draft.completion.token_ids) == 1 for draft in link.invoke(values, max_tokens=1).drafts)


def test_mistakes_are_taught(engine):
    llm = RapidLLM(engine=engine)
    with pytest.raises(ConfigurationError, match="speculative_rag takes a ChatRapid or RapidLLM"):
        speculative_rag(RunnableLambda(str), TEXT)
    with pytest.raises(ConfigurationError, match="draft"):
        speculative_rag(llm, TEXT, draft=5)
    with pytest.raises(ConfigurationError, match="takes a list of documents or texts as 'context'"):
        speculative_rag(llm, TEXT).invoke({"context": "joined", "question": "7?"})
    with pytest.raises(ConfigurationError, match="takes a question as 'question'"):
        speculative_rag(llm, TEXT).invoke({"context": DOCUMENTS})
