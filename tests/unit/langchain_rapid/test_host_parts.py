"""LangChain's own splitters, embeddings, retrievers and document compressors make what the drafter reads."""

import numpy as np
import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.prompts import PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

from langchain_rapid import ChatRapid, RapidLLM, in_document_order
from langchain_rapid.host_parts import fingerprint_of
from rapid_integrations import ConfigurationError
from rapid_integrations.compression import selection
from tests.toys.langchain_parts import DOCUMENT, PARAGRAPHS, WANTED, Best, Hashed, Only, splitter

TEMPLATE = PromptTemplate.from_template("Read this.\n{context}\nAsked: {question}")
ABOUT = " ".join(WANTED.split()[:6]) + "?"


class Scores(BaseDocumentCompressor):
    """Puts the first paragraphs first, whatever was asked."""

    def compress_documents(self, documents, query, callbacks=None):
        return [
            Document(
                page_content=document.page_content,
                metadata={**document.metadata, "relevance_score": -DOCUMENT.index(document.page_content)},
            )
            for document in documents
        ]


@pytest.fixture
def quiet(caplog):
    caplog.set_level("ERROR")  # the splitter tells of paragraphs longer than its chunk_size


def read(model, seen, question=ABOUT):
    (TEMPLATE | model).invoke({"context": DOCUMENT, "question": question})
    return seen[-1].compression


@pytest.mark.parametrize("cls", [RapidLLM, ChatRapid])
def test_embeddings_and_splitter(engine, cls, seen, quiet):
    embeddings = Hashed()
    found = read(cls(engine=engine, embeddings=embeddings, text_splitter=splitter()), seen)
    assert embeddings.texts and [text.strip() for text in embeddings.texts] == PARAGRAPHS
    assert found.source == "embedder" and WANTED in found.texts[0] and found.shortened
    assert seen[-1].drafter.text == seen[-1].target.text.replace(DOCUMENT, found.texts[0])


def test_an_overlapping_splitter(engine, seen):
    overlapping = RecursiveCharacterTextSplitter(chunk_size=120, chunk_overlap=40)
    found = read(RapidLLM(engine=engine, embeddings=Hashed(), text_splitter=overlapping), seen)
    chunks = [scored.chunk for scored in found.selected[0]]
    assert all(DOCUMENT[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert all(one.end <= other.start for one, other in zip(chunks, chunks[1:], strict=False))


def test_a_retriever(engine, seen):
    found = read(RapidLLM(engine=engine, retriever=Best()), seen)
    assert found.source == "retriever"
    assert found.texts[0].split("\n\n")[:2] == [PARAGRAPHS[1], PARAGRAPHS[3]]  # in document order


def test_a_vector_store(engine, seen):
    store = InMemoryVectorStore.from_texts(PARAGRAPHS, Hashed())
    found = read(ChatRapid(engine=engine, retriever=store.as_retriever(search_kwargs={"k": 2})), seen)
    assert found.source == "retriever" and WANTED in found.texts[0]


def test_a_retriever_that_finds_nothing_of_it(engine, seen):
    store = InMemoryVectorStore.from_texts(["something else altogether"], Hashed())
    assert read(RapidLLM(engine=engine, retriever=store.as_retriever()), seen).source == "embedder"


def test_a_document_compressor(engine, seen, quiet):
    model = RapidLLM(engine=engine, embeddings=Hashed(), text_splitter=splitter(), document_compressor=Only())
    found = read(model, seen, "anything?")
    assert found.source == "reranker" and found.texts[0].strip() == WANTED


def test_its_scores_decide(engine, seen, quiet):
    model = RapidLLM(engine=engine, embeddings=Hashed(), text_splitter=splitter(), document_compressor=Scores())
    assert read(model, seen, ABOUT).texts[0].startswith(PARAGRAPHS[0])


def test_a_retriever_with_a_compressor(engine, seen):
    found = read(RapidLLM(engine=engine, retriever=Best(), document_compressor=Only()), seen)
    assert found.source == "retriever" and found.texts[0].strip() == WANTED


def test_what_is_no_splitter(engine):
    with pytest.raises(ConfigurationError, match="has no split_text"):
        RapidLLM(engine=engine, text_splitter="words")


def test_the_engines_own_by_default(engine):
    assert RapidLLM(engine=engine)._compressor is engine.compressor


def test_fingerprints():
    assert fingerprint_of(DeterministicFakeEmbedding(size=3)) == fingerprint_of(DeterministicFakeEmbedding(size=3))
    assert fingerprint_of(DeterministicFakeEmbedding(size=3)) != fingerprint_of(DeterministicFakeEmbedding(size=4))
    one, other = Hashed(), Hashed()
    other.client = object()
    assert fingerprint_of(one) != fingerprint_of(other)


def test_document_order():
    def document(**metadata):
        return Document(page_content=str(metadata), metadata=metadata)

    ordered = [
        document(source="a", page=1, start_index=0),
        document(source="a", page=1, start_index=500),
        document(source="a", page=1),
        document(source="a", page=10, start_index=3),
        document(source="b", page=0),
        document(source="b", page=0, note="kept behind"),
    ]
    shuffled = [ordered[i] for i in (3, 1, 4, 5, 2, 0)]
    assert in_document_order(shuffled) == ordered
    assert in_document_order([]) == []


# --- scores that are no numbers -------------------------------------------------------------------------------------


class Scored(BaseRetriever):
    """Finds paragraphs with given scores."""

    scores: dict

    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(page_content=PARAGRAPHS[n], metadata={"score": s}) for n, s in self.scores.items()]


def ask(llm):
    prompt = TEMPLATE.format(context=DOCUMENT, question=ABOUT)
    return llm.invoke(prompt, rapid_context=DOCUMENT, rapid_query=ABOUT)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({1: float("nan"), 3: 0.5, 4: 0.4}, [3, 4]),
        ({1: float("inf"), 3: 0.5, 4: float("-inf")}, [1, 3]),
        ({3: np.float32(0.5), 1: np.float64(0.4), 4: 0}, [1, 3]),
        ({3: float("nan"), 1: float("nan"), 4: float("nan")}, [1, 3]),
        ({3: "0.9", 1: None, 4: "x"}, [1, 3]),  # an order only
    ],
)
def test_scores_of_every_kind(engine, seen, monkeypatch, scores, expected):
    monkeypatch.setattr(selection, "_said", {"the retriever or reranker"})
    ask(ChatRapid(engine=engine, retriever=Scored(scores=scores)))
    assert [chunk.text.strip() for chunk in seen[0].retrieved] == [PARAGRAPHS[number] for number in expected]


def test_nan_is_said_once(engine, monkeypatch):
    monkeypatch.setattr(selection, "_said", set())
    llm = ChatRapid(engine=engine, retriever=Scored(scores={3: 0.5, 1: float("nan")}))
    with pytest.warns(UserWarning, match="gave NaN, which is not a number"):
        ask(llm)
    ask(llm)  # warnings are errors here
