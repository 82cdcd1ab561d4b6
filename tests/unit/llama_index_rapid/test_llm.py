"""Settings that change after an LLM was made, and the tokenizers of several LLMs in one process."""

import asyncio

import llama_index.core
import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.utils import set_global_tokenizer

from rapid_integrations import CompressionConfig, ConfigurationError
from tests.toys.llama_index_llms import make_llm
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS, HashEmbedding, nodes
from tests.toys.models import byte_tokenizer, tiny_model

QUESTION = f"What about {PARAGRAPHS[7][11:60]}?"
UNASKED = QUESTION.replace("What", "What, for once,")  # nothing was retrieved for it
PROMPT = f"Context:\n{DOCUMENT}\n\nQuestion: {UNASKED}"


class Last(BaseNodePostprocessor):
    """Keeps what it is given last."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        return [max(nodes, key=lambda node: node.metadata["rapid_chunk"])]


@pytest.fixture(autouse=True)
def no_tokenizer_chosen(monkeypatch):
    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)


@pytest.fixture
def llm():
    return make_llm()


# --- settings that are changed --------------------------------------------------------------------------------------


async def test_a_changed_number_of_new_tokens_counts_at_once(llm, given):
    llm.max_new_tokens = 600
    assert llm.metadata.num_output == 600
    helper = PromptHelper.from_llm_metadata(llm.metadata)
    assert helper.num_output == 600
    llm.max_new_tokens = 3
    assert llm.complete("hello").raw["usage"]["completion_tokens"] <= 3


async def test_a_changed_window_counts_at_once_and_the_prompts_fit(llm, given):
    before = llm.metadata.context_window
    llm.context_window = 2600
    assert llm.metadata.context_window < 2600 < before
    index = VectorStoreIndex(nodes(), embed_model=HashEmbedding(texts=[], queries=[]))
    index.as_query_engine(llm=llm, similarity_top_k=12).query(QUESTION)
    assert len(given) > 1 and all(len(request.target_ids) + 12 <= 2600 for request in given)
    llm.context_window = None
    assert llm.metadata.context_window == before


def test_a_copy_with_changes_has_them_and_the_original_has_not(llm):
    copy = llm.model_copy(update={"max_new_tokens": 3, "temperature": 0.5})
    assert copy.metadata.num_output == 3 and llm.metadata.num_output == 12
    assert copy.rapid_engine is llm.rapid_engine
    assert copy.complete("hello").raw["usage"]["completion_tokens"] <= 3
    with pytest.raises(ConfigurationError, match="temperature=-1"):
        llm.model_copy(update={"temperature": -1})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temperature", -1, "temperature=-1"),
        ("max_new_tokens", 0, "max_new_tokens=0"),
        ("stop", ("",), "must not be empty"),
        ("context_window", 3, "context_window=3"),
        ("law", "exact", "law='exact'"),
        ("compression", {"chunk_tokens": 1}, "chunk_tokens=1"),
        ("embed_model", 5, "give a BaseEmbedding"),
        ("retriever", "bm25", "retriever='bm25'"),
        ("node_postprocessors", [1], "node_postprocessors"),
        ("temprature", 1.0, "did you mean 'temperature'"),
        ("target", "another", "target is what this RapidLLM was loaded with"),
        ("model", object(), "model is what this RapidLLM was loaded with"),
        ("prefix_cache_bytes", 0, "prefix_cache_bytes is what this RapidLLM was loaded with"),
    ],
)
def test_what_cannot_be_changed_is_refused_and_changes_nothing(llm, name, value, said):
    before = getattr(llm, name, None)
    with pytest.raises(ConfigurationError, match=said.replace("(", r"\(")):
        setattr(llm, name, value)
    assert getattr(llm, name, None) is before
    assert llm.complete("hello", max_new_tokens=1).text is not None


def test_a_setting_may_be_set_under_another_librarys_name(llm):
    before = llm.max_new_tokens
    llm.max_tokens = 5
    assert llm.metadata.num_output == 5
    llm.max_new_tokens = before


def test_the_value_that_is_there_may_be_set_again(llm):
    llm.target = llm.target
    llm.engine = llm.engine
    llm.completion_to_prompt = None
    assert llm.complete("hello").text


async def test_parts_that_are_set_later_are_used(llm, given):
    def source():
        given.clear()
        llm.complete(PROMPT)
        return given[0].compression.source

    assert source() == "embedder"
    embedding = HashEmbedding(texts=[], queries=[])
    llm.embed_model = embedding
    assert source() == "embedder" and embedding.queries == [UNASKED]
    llm.node_postprocessors = [SimilarityPostprocessor(similarity_cutoff=0.0)]
    assert source() == "reranker" and len(given[0].retrieved) > 1
    llm.node_postprocessors.append(Last())  # in place
    assert source() == "reranker" and len(given[0].retrieved) == 1
    llm.node_postprocessors = []
    llm.node_parser = SentenceSplitter(chunk_size=40, chunk_overlap=0, tokenizer=str.split)
    embedding.texts.clear()
    assert source() == "embedder" and all(len(text.split()) <= 40 for text in embedding.texts)
    llm.retriever = VectorStoreIndex(nodes(), embed_model=HashEmbedding(texts=[], queries=[])).as_retriever()
    assert source() == "retriever"
    llm.retriever = None
    assert source() == "embedder"
    llm.compression = CompressionConfig(ratio=1.0)
    assert source() == "whole"


# --- tokenizers -----------------------------------------------------------------------------------------------------


def coarse_llm(**settings):
    """Return an LLM whose tokens are several characters long, where the other's are one."""
    merges = [("Ġ", letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
    merges += [(a, b) for a in "abcdefghijklm" for b in "nopqrstuvwxyz"]
    model = tiny_model("llama", 0, max_position_embeddings=8192, vocab_size=512)
    return make_llm(model=model, tokenizer=byte_tokenizer(merges=merges), **settings)


async def test_each_llm_is_counted_with_its_own_tokenizer():
    fine, coarse = make_llm(), coarse_llm()
    counted = {}
    for name, llm in (("fine", fine), ("coarse", coarse), ("fine again", fine)):
        helper = PromptHelper.from_llm_metadata(llm.metadata)
        counted[name] = helper._token_counter.get_string_tokens(DOCUMENT)
        assert counted[name] == len(llm.rapid_engine.vocabulary.encode(DOCUMENT))
        memory = ChatMemoryBuffer.from_defaults(llm=llm)
        assert len(memory.tokenizer_fn(DOCUMENT)) == counted[name]
    assert counted["coarse"] < 0.8 * counted["fine"] == 0.8 * counted["fine again"]


@pytest.mark.parametrize("form", ["query", "aquery"])
async def test_prompts_fit_whichever_of_two_llms_is_asked(given, form):
    windows = {"context_window": 2600, "max_new_tokens": 8}
    fine = make_llm(**windows)
    coarse = coarse_llm(**windows)
    index = VectorStoreIndex(nodes(), embed_model=HashEmbedding(texts=[], queries=[]))
    engines = [index.as_query_engine(llm=llm, similarity_top_k=12) for llm in (fine, coarse, fine)]
    for engine in engines:  # made before the other was last asked
        response = await engine.aquery(QUESTION) if form == "aquery" else engine.query(QUESTION)
        assert str(response) != "Empty Response"
    if form == "aquery":
        await asyncio.gather(*(engine.aquery(QUESTION) for engine in engines))
    assert all(len(request.target_ids) + 8 <= 2600 for request in given)
    assert any(len(request.target_ids) > 2000 for request in given)  # and they are full


def test_a_tokenizer_of_the_users_own_is_left_alone_and_warned_of_once_if_it_counts_less():
    Settings.tokenizer = str.split
    with pytest.warns(
        UserWarning, match=r"counts \d+ tokens in a sample while .* reads 234: packed prompts may not fit"
    ):
        llm = make_llm()
    assert llama_index.core.global_tokenizer is str.split
    assert llm.metadata.context_window  # said once: warnings are errors here
    set_global_tokenizer(None)
    assert len(PromptHelper.from_llm_metadata(llm.metadata)._token_counter.tokenizer("héllo")) == 6
    set_global_tokenizer(lambda text: list(text.encode()) + [0])
    assert llm.metadata.context_window  # one that counts more packs too little: that is no fault


def test_counting_can_be_left_to_llama_index():
    llm = make_llm(count_with_own_tokenizer=False)
    assert llm.metadata.context_window and llama_index.core.global_tokenizer is None
    llm.count_with_own_tokenizer = True
    assert llm.metadata.context_window and len(llama_index.core.global_tokenizer("héllo")) == 6
