"""A tiny model behind `RapidLLM`, and a record of every text that target and drafter were given."""

import functools

import pytest
from llama_index.core import Settings, VectorStoreIndex

from llama_index_rapid import RapidLLM
from llama_index_rapid.pipeline_scores import PIPELINE_SCORES
from rapid_integrations import CompressionConfig, RapidEngine
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine, light_weights
from tests.toys.llama_index_parts import HashEmbedding, nodes
from tests.toys.models import byte_tokenizer

RAW = {"model", "tokenizer", "drafter_model", "prefix_cache_bytes"}  # fields that an LLM builds its own engine from
SMALL = CompressionConfig(chunk_tokens=256, min_tokens=512, min_chunks=2)


def make_llm(chat_template=..., **settings):
    options = {} if chat_template is ... else {"chat_template": chat_template}
    tokenizer, size = byte_tokenizer(**options), {"max_position_embeddings": 8192}
    defaults = {"max_new_tokens": 12, "compression": SMALL, "embed_model": HashEmbedder()}
    if settings.keys() & RAW:
        raw = {"model": light_weights(tokenizer=tokenizer, **size), "tokenizer": tokenizer}
        return RapidLLM(**{**raw, **defaults, **settings})
    return RapidLLM(engine=light_engine(tokenizer=tokenizer, config=size), **{**defaults, **settings})


@pytest.fixture(scope="session")
def shared_llm():
    return make_llm()


@pytest.fixture
def llm(shared_llm):
    """A chat model."""
    return shared_llm


@pytest.fixture
def base_llm():
    """A model without a chat template."""
    return make_llm(chat_template=None)


@pytest.fixture
def given(monkeypatch):
    """Every request: (target's text, drafter's text, statistics of how it was split)."""
    requests = []
    stream = RapidEngine.stream

    @functools.wraps(stream)
    def recorded(self, *args, **kwargs):
        made = stream(self, *args, **kwargs)
        prepared = made.prepared
        assert self.vocabulary.decode(prepared.target_ids) == self.vocabulary.decode(
            self.vocabulary.encode_prompt(prepared.target)
        )
        requests.append(prepared)
        return made

    monkeypatch.setattr(RapidEngine, "stream", recorded)
    return requests


@pytest.fixture(autouse=True)
def settings(shared_llm, monkeypatch):
    """No default of LlamaIndex's may reach for a hosted model."""
    monkeypatch.setattr(Settings, "_llm", shared_llm)
    monkeypatch.setattr(Settings, "_embed_model", HashEmbedding())


@pytest.fixture(autouse=True)
def nothing_was_retrieved():
    """What one test retrieved for a question must not answer it in the next."""
    PIPELINE_SCORES.clear()


@pytest.fixture
def embedding():
    return HashEmbedding(texts=[], queries=[])


@pytest.fixture
def index(embedding):
    return VectorStoreIndex(nodes(), embed_model=embedding)
