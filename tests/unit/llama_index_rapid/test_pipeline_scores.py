"""Scores and vectors of somebody else's that are no numbers, and retrievals by the thousand."""

import uuid

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode

from llama_index_rapid import DocumentOrder
from llama_index_rapid.pipeline_scores import PipelineScores
from rapid_integrations import ConfigurationError
from rapid_integrations.compression import HostEmbedder, selection
from rapid_integrations.errors import HostPartError
from tests.toys.llama_index_llms import make_llm
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS, HashEmbedding, nodes
from tests.toys.work import assert_linear

NAN, INF = float("nan"), float("inf")
WANTED = PARAGRAPHS[7]


@pytest.fixture
def prompt():
    """A question that nothing else in this process has retrieved anything for."""
    return f"Context:\n{DOCUMENT}\n\nQuestion: What about {WANTED[11:60]}, {uuid.uuid4()}?"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(selection, "_said", set())


class Found(BaseRetriever):
    """Finds paragraphs with given scores."""

    def __init__(self, scores, copies=1):
        self._scores = scores
        self._copies = copies
        super().__init__()

    def _retrieve(self, query_bundle):
        found = [NodeWithScore(node=TextNode(text=PARAGRAPHS[n]), score=s) for n, s in self._scores.items()]
        return found * self._copies


def kept(llm, prompt):
    return [chunk.text.strip() for chunk in llm.explain(prompt).retrieved]


def test_nan_is_the_lowest_score_of_a_retriever_and_said_once(prompt):
    llm = make_llm(retriever=Found({7: 0.1, 2: NAN, 9: 0.5, 4: NAN}))
    with pytest.warns(UserWarning, match="the retriever Found gave NaN, which is not a number") as said:
        assert kept(llm, prompt) == [WANTED, PARAGRAPHS[9]]
    assert len(said) == 1
    assert kept(llm, prompt) == [WANTED, PARAGRAPHS[9]]  # warnings are errors here


@pytest.mark.filterwarnings("ignore:the retriever Found gave")
@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({7: INF, 2: 0.5, 9: -INF}, [2, 7]),
        ({7: None, 2: None, 9: 0.9}, [2, 7]),  # an order
        ({2: NAN, 7: NAN, 9: NAN}, [2, 7]),  # of equals the first in the document
        ({7: np.float32(0.5), 2: np.float64(0.4), 9: 0}, [2, 7]),
        ({7: -3.0, 2: -5.0, 9: -9.0}, [2, 7]),
    ],
)
def test_scores_of_every_kind(prompt, scores, expected):
    llm = make_llm(retriever=Found(scores))
    answer = llm.complete(prompt)
    assert [chunk["text"].strip() for chunk in answer.raw["retrieved"]] == [PARAGRAPHS[n] for n in expected]
    assert all(chunk["score"] is None or abs(chunk["score"]) < INF for chunk in answer.raw["retrieved"])


@pytest.mark.parametrize("copies", [0, 3])
def test_a_retriever_that_finds_nothing_or_everything_three_times(prompt, copies):
    llm = make_llm(retriever=Found({7: 0.9, 2: 0.5, 9: 0.1}, copies))
    source = llm.explain(prompt).compression.source
    assert source == ("retriever" if copies else "embedder")
    if copies:
        assert kept(llm, prompt) == [PARAGRAPHS[2], WANTED]


class Scoring(BaseNodePostprocessor):
    """Gives every node one score, or loses them."""

    score: float | None = None
    nothing: bool = False
    foreign: bool = False

    def _postprocess_nodes(self, nodes, query_bundle=None):
        if self.foreign:
            return [NodeWithScore(node=TextNode(text="made up"), score=1.0)] + nodes[:1]
        return [] if self.nothing else [NodeWithScore(node=n.node, score=self.score) for n in nodes]


@pytest.mark.filterwarnings("ignore:a node post-processor gave")
@pytest.mark.parametrize(
    "settings", [{"score": NAN}, {"score": INF}, {"score": None}, {"nothing": True}, {"foreign": True}]
)
def test_post_processors_of_every_kind(prompt, settings):
    llm = make_llm(node_postprocessors=[Scoring(**settings)])
    request = llm.explain(prompt)
    assert request.compression.source == "reranker" and request.retrieved
    assert all("made up" not in chunk.text for chunk in request.retrieved)
    assert llm.complete(prompt).text is not None


class Odd(HashEmbedding):
    """An embedding model with its faults."""

    fault: str = ""

    def _vector(self, text):
        vector = super()._vector(text)
        if self.fault == "zeros" or (self.fault == "NaN" and WANTED not in text and "zoqnl" not in text):
            return [0.0 if self.fault == "zeros" else NAN] * len(vector)
        if self.fault == "query" and "?" in text:
            return [NAN] * len(vector)
        if self.fault == "ragged":
            return vector[: 3 + len(text) % 5]
        return [] if self.fault == "empty" else vector


def test_vectors_of_zeros_and_nan(prompt):
    assert len(kept(make_llm(embed_model=Odd(fault="zeros")), prompt)) == 2
    with pytest.warns(UserWarning, match="the embedder .* gave NaN, which is not a number"):
        explained = make_llm(embed_model=Odd(fault="NaN")).explain(prompt)
    assert WANTED in explained.drafter.text
    selection._said.clear()
    with pytest.warns(UserWarning, match="the embedder"):
        assert len(kept(make_llm(embed_model=Odd(fault="query")), prompt)) == 2


@pytest.mark.parametrize("fault", ["ragged", "empty"])
def test_vectors_that_are_none_are_a_clear_error(prompt, fault):
    llm = make_llm(embed_model=Odd(fault=fault))
    with pytest.raises(ConfigurationError, match="the embedder .* gave"):
        llm.complete(prompt)


def test_a_question_embedded_in_another_dimension_is_a_clear_error(prompt):
    class Shorter(HashEmbedding):
        def _get_query_embedding(self, query):
            return super()._get_query_embedding(query)[:8]

    with pytest.raises(ConfigurationError, match="a vector of 8 numbers, and the document's passages vectors of"):
        make_llm(embed_model=Shorter()).complete(prompt)


def test_an_embedder_that_gives_too_few_vectors():
    embedder = HostEmbedder("it", "it", lambda texts: [[1.0, 0.0]], lambda text: [1.0, 0.0])
    with pytest.raises(ConfigurationError, match="the embedder it gave 1 vectors for 2 texts"):
        embedder.embed(["a", "b"])
    assert embedder.embed(["a"]).tolist() == [[1.0, 0.0]]


def test_an_embedder_that_fails_is_said_to(prompt):
    class Gone(HashEmbedding):
        def _get_text_embedding(self, text):
            raise ValueError("no connection")

    with pytest.raises(HostPartError, match="no connection"):
        make_llm(embed_model=Gone()).complete(prompt)


@pytest.mark.filterwarnings("ignore:the pipeline gave")
async def test_a_pipeline_whose_scores_are_nan(given):
    class Blind(HashEmbedding):
        def _vector(self, text):
            return [NAN] * 8

    index = VectorStoreIndex(nodes(), embed_model=Blind())
    question = f"What about {WANTED[11:60]}, {uuid.uuid4()}?"
    engine = index.as_query_engine(llm=make_llm(), similarity_top_k=12, node_postprocessors=[DocumentOrder()])
    assert str(engine.query(question)) != "Empty Response"
    assert given[0].target.contexts == (DOCUMENT,) and given[0].retrieved


# --- a thousand documents -------------------------------------------------------------------------------------------


def test_what_is_remembered_is_bounded_in_bytes():
    scores = PipelineScores(most_bytes=200_000)
    for document in range(1000):
        found = [
            NodeWithScore(node=TextNode(text=f"{document} {number} " + "word " * 40), score=number / 60)
            for number in range(60)
        ]
        scores.remember("one question?", found)
    assert 100_000 < scores.nbytes <= 200_000
    remembered = {passage.text for passage in scores.passages("one question?")}
    assert len(remembered) > 500 and f"999 59 {'word ' * 40}" in remembered  # the latest are there
    scores.remember("another?", found)
    assert scores.nbytes <= 200_000 and len(scores.passages("another?")) == 60


def test_a_document_of_a_thousand_is_found_at_once():
    """Those are found that a long prompt shows, in time that grows with both and not with their product."""

    def remembered(count):
        scores = PipelineScores(most_bytes=2**30)
        texts = [f"Passage {number} of many. " + f"{number * 7919} " * 60 for number in range(count)]
        scores.remember("q?", [NodeWithScore(node=TextNode(text=text), score=1.0) for text in texts])
        shown = slice(6, 6 + count // 400)
        context = "\n\n".join([texts[5][-200:], *texts[shown], texts[shown.stop][:200]])  # cut at both ends
        return scores, texts, shown, context

    def found_in(made):
        scores, texts, shown, context = made
        found = {passage.text for passage in scores.passages("q?", [context])}
        assert {texts[number].strip() for number in range(5, shown.stop + 1)} <= {text.strip() for text in found}
        assert len(found) < 200

    assert_linear(found_in, remembered, 16_000)
    scores, texts, _, _ = remembered(1000)
    inside = texts[77][50:200]  # a piece out of the middle of one
    assert texts[77] in {passage.text for passage in scores.passages("q?", [inside])}
