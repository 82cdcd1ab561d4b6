"""Documents that an ingestion pipeline reads before the first question."""

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
from llama_index.core import PromptTemplate, SummaryIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, NodeWithScore

from llama_index_rapid import DocumentOrder, ReadAhead
from rapid_integrations import PromptError
from tests.toys.llama_index_llms import make_llm
from tests.toys.models import words

DOCUMENTS = [Document(text=words(seed, 250), metadata={"file_name": f"{seed}.md"}) for seed in (1, 2)]
SPLITTER = SentenceSplitter(chunk_size=64, chunk_overlap=0)


@pytest.fixture(params=[True, False], ids=["chat model", "base model"])
def own(request):
    """An LLM whose prefix cache is empty."""
    llm = make_llm(**({} if request.param else {"chat_template": None}), prefix_cache_bytes=2**28)
    yield llm
    llm.close()


def ask_about(llm, nodes):
    index = SummaryIndex(list(nodes))
    index.as_query_engine(llm=llm, node_postprocessors=[DocumentOrder()]).query("which words?")


def test_a_query_engine_finds_each_document_read(own, given):
    nodes = IngestionPipeline(transformations=[SPLITTER, ReadAhead(llm=own)], disable_cache=True).run(
        documents=DOCUMENTS
    )
    memory = own.rapid_engine._prefixes.memory
    held = [list(entry.token_ids) for entry in memory._entries]
    assert len(held) == 2
    for document in DOCUMENTS:
        ask_about(own, [node for node in nodes if node.ref_doc_id == document.doc_id])
        ids = given[-1].target_ids
        assert max(len(tokens) for tokens in held if ids[: len(tokens)] == tokens) > len(document.text)


def test_all_documents_in_one_prompt(own, given):
    own_nodes = SPLITTER.get_nodes_from_documents(DOCUMENTS[::-1])
    assert ReadAhead(llm=own, together=True)(own_nodes) is own_nodes
    (entry,) = own.rapid_engine._prefixes.memory._entries
    ask_about(own, own_nodes)
    assert given[-1].target_ids[: len(entry.token_ids)] == list(entry.token_ids)
    assert len(entry.token_ids) > sum(len(document.text) for document in DOCUMENTS)


def test_asynchronously(own):
    nodes = SPLITTER.get_nodes_from_documents(DOCUMENTS)
    with ThreadPoolExecutor(1) as thread:  # LlamaIndex's synchronous calls need this thread's own event loop
        assert thread.submit(asyncio.run, ReadAhead(llm=own).acall(nodes)).result() is nodes
    assert len(own.rapid_engine._prefixes.memory) == 2


def test_a_copy_reads_with_the_same_engine(own):
    step = ReadAhead(llm=own, together=True)
    copied = copy.deepcopy(step)
    assert copied.llm.rapid_engine is own.rapid_engine and copied.together
    assert "llm" not in step.to_dict() and step.to_dict()["class_name"] == "ReadAhead"
    copied.llm.close()


def test_a_template_with_its_question_first_is_refused(own):
    template = PromptTemplate("Question: {query_str}\nContext: {context_str}\nAnswer: ")
    with pytest.raises(PromptError, match="Put the documents first"):
        ReadAhead(llm=own, text_qa_template=template)(SPLITTER.get_nodes_from_documents(DOCUMENTS))


def test_the_oldest_files_come_first():
    dates = {"a.md": "2026-03-01", "b.md": "2024-01-01", "c.md": "2025-01-01"}
    documents = [
        Document(text=words(seed, 80), metadata={"file_name": name, "last_modified_date": date})
        for seed, (name, date) in enumerate(dates.items())
    ]
    nodes = [NodeWithScore(node=node) for node in SPLITTER.get_nodes_from_documents(documents)]
    files = [
        list(dict.fromkeys(node.node.metadata["file_name"] for node in order.postprocess_nodes(nodes)))
        for order in (DocumentOrder(), DocumentOrder(oldest_first=True))
    ]
    assert files == [["a.md", "b.md", "c.md"], ["b.md", "c.md", "a.md"]]
