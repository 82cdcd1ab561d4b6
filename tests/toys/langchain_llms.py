"""One tiny engine for all tests here, and a record of what its two models read."""

import pytest

from langchain_rapid import ChatRapid, RapidLLM, capture_templates
from rapid_integrations import CompressionConfig, RapidEngine, SamplingParams
from tests.toys.chat_templates import QWEN25
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine
from tests.toys.models import byte_tokenizer, words

DOCUMENT = words(1, 120)
QUESTION = "which words are there?"


def make_engine(**options):
    chat_template = options.pop("chat_template", QWEN25)
    tokenizer = byte_tokenizer(chat_template=chat_template, extra_tokens=("<tool_call>", "</tool_call>"))
    settings = {
        "embedder": HashEmbedder(),
        "compression": CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        "sampling": SamplingParams(max_new_tokens=8),
        **options,
    }
    return light_engine(tokenizer=tokenizer, config={"max_position_embeddings": 8192}, **settings)


@pytest.fixture(scope="session")
def engine():
    return make_engine()


@pytest.fixture
def llm(engine):
    return RapidLLM(engine=engine)


@pytest.fixture
def chat(engine):
    return ChatRapid(engine=engine)


@pytest.fixture(params=["llm", "chat"])
def either(request):
    """The plain LLM, then the chat model: what is true of both."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def capturing():
    capture_templates(True)
    yield
    capture_templates(True)


@pytest.fixture
def seen(monkeypatch):
    """What the models were given: a list of `PreparedPrompt`, in the order of the calls."""
    record = []
    stream = RapidEngine.stream

    def recording(self, *args, **options):
        made = stream(self, *args, **options)
        record.append(made.prepared)
        return made

    monkeypatch.setattr(RapidEngine, "stream", recording)
    return record


def as_user(text):
    """What the tiny model's template writes around one user message."""
    return f"<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def expect(prepared, target, context=DOCUMENT, segmentation="template", query=QUESTION):
    """Assert both texts: the drafter's is the target's with the context replaced by what was retrieved from it."""
    kept = prepared.compression.texts
    assert prepared.target.text == target
    assert prepared.target.contexts == (context,)
    assert len(kept) == 1 and 0 < len(kept[0]) < len(context)
    assert prepared.drafter.text == target.replace(context, kept[0])
    assert prepared.target.segmentation == segmentation
    assert prepared.target.query == query
