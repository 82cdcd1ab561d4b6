"""A small random model in a folder, and every host class over it by name."""

import asyncio

import pytest

import langchain_rapid
import llama_index_rapid
from rapid_integrations import CompressionConfig
from rapid_integrations.engine.loaded_engines import LOADED_ENGINES
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine, light_weights
from tests.toys.models import byte_tokenizer

SMALL = CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2)
HOSTS = [llama_index_rapid.RapidLLM, langchain_rapid.RapidLLM, langchain_rapid.ChatRapid]


@pytest.fixture(autouse=True)
def registry():
    """As in a process of its own: what another test still holds is not found."""
    LOADED_ENGINES.forget()
    yield LOADED_ENGINES
    LOADED_ENGINES.forget()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A model and its tokenizer, as `save_pretrained` leaves them."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    light_weights().save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(params=HOSTS, ids=lambda host: f"{host.__module__.split('_')[0]}-{host.__name__}")
def host(request):
    return request.param


@pytest.fixture
def make(host, folder):
    """Build one of the host's LLMs by the folder's name."""
    return lambda **settings: build(host, folder, **settings)


def build(host, folder, **settings):
    embedder = "embed_model" if host is llama_index_rapid.RapidLLM else "embeddings"
    defaults = {"target": str(folder), "dtype": "float32", "max_new_tokens": 4, "compression": SMALL}
    return host(**{**defaults, embedder: HashEmbedder(), **settings})


def ask(llm, prompt="hello there", **settings):
    """Return the answer's text, whichever host's LLM it is."""
    if hasattr(llm, "complete"):
        return llm.complete(prompt, **settings).text
    answer = llm.invoke(prompt, **settings)
    return answer if isinstance(answer, str) else answer.content


@pytest.fixture
def engine():
    with light_engine(embedder=HashEmbedder(), compression=SMALL) as built:
        yield built


async def _first(pieces):
    async for piece in await pieces if asyncio.iscoroutine(pieces) else pieces:
        return piece


# Every way to ask, by host.
CALLS = {
    "llama": {
        "complete": lambda llm: llm.complete("hello"),
        "stream_complete": lambda llm: next(llm.stream_complete("hello")),
        "chat": lambda llm: llm.chat([_message("hello")]),
        "stream_chat": lambda llm: next(llm.stream_chat([_message("hello")])),
        "acomplete": lambda llm: asyncio.run(llm.acomplete("hello")),
        "astream_complete": lambda llm: asyncio.run(_first(llm.astream_complete("hello"))),
        "achat": lambda llm: asyncio.run(llm.achat([_message("hello")])),
        "astream_chat": lambda llm: asyncio.run(_first(llm.astream_chat([_message("hello")]))),
        "explain": lambda llm: llm.explain("hello"),
        "rapid_engine": lambda llm: llm.rapid_engine,
    },
    "langchain": {
        "invoke": lambda llm: llm.invoke("hello"),
        "batch": lambda llm: llm.batch(["hello"]),
        "stream": lambda llm: next(llm.stream("hello")),
        "ainvoke": lambda llm: asyncio.run(llm.ainvoke("hello")),
        "astream": lambda llm: asyncio.run(_first(llm.astream("hello"))),
        "get_num_tokens": lambda llm: llm.get_num_tokens("hello"),
        "rapid_engine": lambda llm: llm.rapid_engine,
    },
}


def _message(text):
    from llama_index.core.llms import ChatMessage

    return ChatMessage(role="user", content=text)
