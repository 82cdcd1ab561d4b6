"""A real engine over a puppet, so that our classes can stand in for mock models: what the model writes is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from rapid_integrations import CompressionConfig, PreparedPrompt, SamplingParams
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from tests.hosts.tokenizer import EOS, IM_END, any_text_tokenizer
from tests.toys.chat_templates import QWEN25
from tests.toys.embedder import HashEmbedder
from tests.toys.puppet import PuppetEngine, PuppetLM

MAX_NEW_TOKENS = 6000  # mocks echo prompts of whole documents
CLOSING = ("</tool_call>", '"', "}", "]", ",", "0")

_answer: ContextVar[str | None] = ContextVar("answer", default=None)
requests_made = 0  # requests that puppets have answered in this process


@contextmanager
def writing(answer: str) -> Iterator[None]:
    """Let the request that is made inside be answered with `answer`."""
    token = _answer.set(answer)
    try:
        yield
    finally:
        _answer.reset(token)


def told() -> bool:
    """Return whether an answer has been told for the request that is being made."""
    return _answer.get() is not None


class MockedEngine(PuppetEngine):
    """Answers with what `writing` was told (an asynchronous request takes it along to its thread), or nothing."""

    def told(self, prepared: PreparedPrompt, options: dict[str, Any]) -> str:
        """Return what `writing` was told, and count the request."""
        global requests_made
        requests_made += 1
        return _answer.get() or ""


@cache
def puppet_engine(chat: bool = True) -> MockedEngine:
    """Return an engine that every puppet of this process shares: with a chat template that takes tools, or none."""
    tokenizer = any_text_tokenizer(QWEN25 if chat else None)
    eos_id, im_end_id, *closing_ids = tokenizer.convert_tokens_to_ids([EOS, IM_END, *CLOSING])
    return MockedEngine(
        LoadedModel(PuppetLM(len(tokenizer), eos_id, closing_ids), Vocabulary(tokenizer, [eos_id, im_end_id])),
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=256, min_tokens=512, min_chunks=2),
        sampling=SamplingParams(max_new_tokens=MAX_NEW_TOKENS),
        prefix_cache_bytes=1 << 24,
    )
