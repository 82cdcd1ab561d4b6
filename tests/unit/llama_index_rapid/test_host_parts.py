"""LlamaIndex's own parts make the drafter's context, and DocumentOrder puts nodes back in order."""

import random

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.node_parser import SentenceSplitter, TokenTextSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_rapid import DocumentOrder
from llama_index_rapid.pipeline_scores import PIPELINE_SCORES, PipelineScores
from rapid_integrations import ConfigurationError
from tests.toys.llama_index_llms import make_llm
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS, HashEmbedding, nodes
from tests.toys.models import tiny_model

WANTED = PARAGRAPHS[4][11:60]
QUESTION = f"What is {WANTED}?"
TEXT = f"Context:\n{DOCUMENT}\n\nQuestion: {QUESTION}"


class Fixed(BaseRetriever):
    """Returns the same nodes whatever is asked."""

    def __init__(self, found):
        self.found = found
        self.asked = []
        super().__init__()

    def _retrieve(self, query_bundle):
        self.asked.append(query_bundle.query_str)
        return self.found


# --- parts ----------------------------------------------------------------------------------------------------------


def test_the_embed_model_embeds_each_chunk_once(given, embedding):
    llm = make_llm(embed_model=embedding)
    llm.complete(TEXT)
    llm.complete(TEXT.replace("What is", "What was"))
    assert "".join(embedding.texts) == DOCUMENT and len(embedding.queries) == 2
    assert all(WANTED in request.drafter.contexts[0] and request.compression.source == "embedder" for request in given)


def test_the_node_parser_cuts(given):
    parser = SentenceSplitter(chunk_size=40, chunk_overlap=8, tokenizer=str.split)
    llm = make_llm(node_parser=parser)
    explained = llm.explain(TEXT)
    cut = [node.text for node in parser.get_nodes_from_documents([Document(text=DOCUMENT)])]
    for chunk in explained.retrieved:
        assert any(DOCUMENT.index(piece) == chunk.start for piece in cut)
    assert explained.compression.context_tokens == len(DOCUMENT)  # nothing lost between the pieces


def test_a_splitter_that_repeats_separators_is_understood():
    llm = make_llm(node_parser=TokenTextSplitter(chunk_size=30, chunk_overlap=0, tokenizer=str.split))
    assert llm.explain(TEXT).compression.context_tokens == len(DOCUMENT)


def test_the_retriever_chooses(given):
    retriever = Fixed([NodeWithScore(node=TextNode(text=PARAGRAPHS[n]), score=s) for n, s in ((9, 0.9), (2, 0.5))])
    llm = make_llm(retriever=retriever)
    llm.complete(TEXT)
    assert retriever.asked == [QUESTION]
    assert [chunk.text.strip() for chunk in given[0].retrieved] == [PARAGRAPHS[2], PARAGRAPHS[9]]
    assert given[0].compression.source == "retriever"
    assert given[0].drafter.contexts == (f"{PARAGRAPHS[2]}\n\n{PARAGRAPHS[9]}",)


def test_a_retriever_without_scores_gives_an_order(given):
    retriever = Fixed([NodeWithScore(node=TextNode(text=PARAGRAPHS[n])) for n in (9, 2, 5, 6, 7, 8)])
    make_llm(retriever=retriever).complete(TEXT)
    assert [chunk.text.strip() for chunk in given[0].retrieved] == [PARAGRAPHS[2], PARAGRAPHS[9]]


def test_a_retriever_of_another_document_does_not_decide(given):
    make_llm(retriever=Fixed([NodeWithScore(node=TextNode(text="something else"), score=1.0)])).complete(TEXT)
    assert given[0].compression.source == "embedder" and WANTED in given[0].drafter.contexts[0]


def test_post_processors_filter_what_was_found(given):
    llm = make_llm(
        node_parser=SentenceSplitter(chunk_size=200, chunk_overlap=0, tokenizer=list),
        node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.2)],
    )
    llm.complete(TEXT)
    assert given[0].compression.source == "reranker"
    assert all(chunk.score >= 0.2 for chunk in given[0].retrieved)


def test_post_processors_filter_what_the_retriever_found(given):
    found = [NodeWithScore(node=TextNode(text=PARAGRAPHS[n]), score=s) for n, s in ((9, 0.9), (2, 0.1))]
    make_llm(retriever=Fixed(found), node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.5)]).complete(
        TEXT
    )
    assert [chunk.text.strip() for chunk in given[0].retrieved] == [PARAGRAPHS[9]]


def test_pipeline_scores_can_be_switched_off(given, index):
    llm = make_llm(use_pipeline_scores=False)
    index.as_query_engine(llm=llm, similarity_top_k=20, node_postprocessors=[DocumentOrder()]).query(QUESTION)
    assert given[0].compression.source == "embedder"


def test_without_document_order_the_retrieval_event_brings_the_scores(given, index, llm, embedding):
    index.as_query_engine(llm=llm, similarity_top_k=20).query(QUESTION)
    embedded = len(embedding.texts)
    request = given[0]
    assert request.compression.source == "pipeline" and embedded == len(PARAGRAPHS)
    assert request.target.contexts[0] != DOCUMENT  # in the retriever's order
    assert PARAGRAPHS[4] in request.drafter.text


def test_embeddings_of_a_hosted_kind_do_not_leak_their_key(embedding):
    from llama_index_rapid.host_parts import embedder_of

    class Hosted(HashEmbedding):
        api_key: str = "sk-secret"

    assert "secret" not in embedder_of(Hosted()).fingerprint
    assert embedder_of(Hosted()).fingerprint != embedder_of(Hosted(api_key="other")).fingerprint


# --- scores ---------------------------------------------------------------------------------------------------------


def scored(texts):
    return [NodeWithScore(node=TextNode(text=text), score=score) for text, score in texts.items()]


def texts(passages):
    return {passage.text: passage.score for passage in passages}


def test_scores_belong_to_their_question():
    scores = PipelineScores()
    scores.remember("one?", scored({"a": 1.0}))
    scores.remember("two?", scored({"a": 2.0}))
    assert texts(scores.passages("one?")) == {"a": 1.0} and texts(scores.passages("two?")) == {"a": 2.0}
    assert scores.passages("three?") == []


def test_a_condensed_questions_scores_pass_to_the_question_that_is_answered():
    scores = PipelineScores()
    scores.remember("condensed", scored({"a": 1.0}))
    scores.answering("as asked")
    assert texts(scores.passages("as asked")) == {"a": 1.0}
    scores.answering("another, without retrieval")
    assert scores.passages("another, without retrieval") == []


def test_a_retrieval_without_scores_leaves_none_behind():
    scores = PipelineScores()
    scores.remember("one?", scored({"a": 1.0}))
    scores.remember("two?", [NodeWithScore(node=TextNode(text="a"))])
    scores.answering("two, really?")
    assert scores.passages("two, really?") == [] == scores.passages("two?")


def test_only_so_many_questions_are_remembered():
    scores = PipelineScores(questions=2)
    for number in range(5):
        scores.remember(str(number), scored({"a": float(number)}))
    assert [bool(scores.passages(str(number))) for number in range(5)] == [False, False, False, True, True]


# --- DocumentOrder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_nodes_come_back_in_document_order_with_their_scores(form):
    ordered = [
        NodeWithScore(node=node, score=0.1 * n) for n, node in enumerate(nodes(document="a") + nodes(document="b"))
    ]
    shuffled = random.Random(0).sample(ordered, len(ordered))
    bundle = QueryBundle("the question")
    order = DocumentOrder()
    if form == "sync":
        assert order.postprocess_nodes(shuffled, bundle) == ordered
    else:
        assert await order.apostprocess_nodes(shuffled, query_str="the question") == ordered
    assert len(PIPELINE_SCORES.passages("the question")) >= len(PARAGRAPHS)
    assert order.postprocess_nodes([]) == []


def test_pages_of_a_file_are_in_order_and_unplaced_nodes_last():
    def node(text, start, **metadata):
        return NodeWithScore(node=TextNode(text=text, start_char_idx=start, metadata=metadata), score=1.0)

    pages = [node(f"page {n}", 0, file_path="report.pdf", page_label=str(n)) for n in (10, 2, 1)]
    placed = [
        node("second", 50, file_path="a.md"),
        node("no place", None, file_path="a.md"),
        node("first", 0, file_path="a.md"),
    ]
    found = [n.text for n in DocumentOrder().postprocess_nodes([*pages, *placed])]
    assert found == ["first", "second", "no place", "page 1", "page 2", "page 10"]


def test_real_splitters_nodes_are_put_back_in_order(embedding):
    splitter = SentenceSplitter(chunk_size=40, chunk_overlap=10, tokenizer=str.split)
    index = VectorStoreIndex.from_documents(
        [Document(text=DOCUMENT)], embed_model=embedding, transformations=[splitter]
    )
    found = index.as_retriever(similarity_top_k=50).retrieve(QUESTION)
    starts = [DOCUMENT.index(node.text) for node in DocumentOrder().postprocess_nodes(found, query_str=QUESTION)]
    assert starts == sorted(starts) and len(starts) > 10


# --- construction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temprature": 1}, "no option 'temprature'"),
        ({"temperature": -1}, "temperature=-1"),
        ({"draft_length": 0}, "draft_length=0"),
        ({"tokenizer": None}, "needs tokenizer="),
        ({"target": "another"}, "target would have no effect"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        make_llm(**settings)


def test_a_drafter_is_a_field(given):
    llm = make_llm(drafter_model=tiny_model("llama", 1, max_position_embeddings=8192, num_hidden_layers=3))
    stats = llm.complete(TEXT).raw["stats"]
    assert stats["law"] == "augmented" and stats["eta"] == "auto" and stats["drafted_tokens"] > 0


def test_eta_is_a_number_or_auto_in_the_model_and_in_a_call(given):
    llm = make_llm(eta="auto")
    assert llm.complete(TEXT).raw["stats"]["eta"] == "auto"
    assert llm.complete(TEXT, eta=3).raw["stats"]["eta"] == 3
    with pytest.raises(ConfigurationError, match="eta='strong'"):
        llm.complete(TEXT, eta="strong")
