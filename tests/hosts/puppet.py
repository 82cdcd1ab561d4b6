"""A real engine over a model that writes what a test tells it to, so that our classes can stand in for mock models.

Everything but the logits is the product's: templates, tokenising, prefill, speculation, verification, streaming, stop
strings, tool calls, grammars, caches. What the model writes is known, and only that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rapid_integrations import CompressionConfig, RapidEngine, SamplingParams
from rapid_integrations.cache import KVCache
from rapid_integrations.engine.engine import CompletionStream
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from tests.hosts.tokenizer import EOS, IM_END, any_text_tokenizer
from tests.toys.chat_templates import QWEN25
from tests.toys.embedder import HashEmbedder
from tests.toys.scripted_lm import TableLM

KEPT_SCRIPTS = 200  # requests that may be under way, or be read again, at the same time
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


class PuppetLM(TableLM):
    """Continues a text that it was told, and ends every other one at once, or as soon as a grammar lets it.

    Args:
        vocab_size: tokens that it may generate.
        eos_id: the token that ends an answer.
        closing_ids: what it would rather write, the first most of all, if a grammar forbids both script and end.
    """

    name = "puppet"

    def __init__(self, vocab_size: int, eos_id: int, closing_ids: Sequence[int] = ()) -> None:
        super().__init__(0, vocab_size)
        self.eos_id = eos_id
        self._otherwise = torch.zeros(vocab_size)
        for rank, token in enumerate([eos_id, *closing_ids]):
            self._otherwise[token] = 500.0 - 10 * rank
        self._scripts: list[tuple[int, Tensor]] = []  # length of the prompt, ids of prompt and answer; newest first
        self._lock = threading.Lock()

    def tell(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> None:
        """Let `answer_ids` be what follows `prompt_ids`, until something else is told to."""
        script = (len(prompt_ids), torch.tensor([*prompt_ids, *answer_ids, self.eos_id]))
        with self._lock:
            self._scripts = [script, *self._scripts[: KEPT_SCRIPTS - 1]]

    @torch.inference_mode()
    def forward(self, token_ids: Tensor, cache: KVCache, keep: int) -> Tensor:
        """Return logits (keep, V): all but one token of a script are as good as excluded."""
        new = token_ids.shape[0]
        keys = token_ids.view(1, 1, new, 1)
        text, _ = cache.write(0, keys, keys)
        cache.advance(new)
        text = text.flatten()
        logits = self._otherwise.repeat(keep, 1)
        for row, token in enumerate(self._after(text, range(len(text) - keep + 1, len(text) + 1))):
            if token is not None:
                logits[row, token] = 1000.0
        return logits

    def _after(self, text: Tensor, lengths: range) -> list[int | None]:
        """Return the token that follows the first n tokens of `text`, for each n of `lengths`: the newest script's."""
        after: dict[int, int] = {}
        if not lengths:
            return []
        for prompt, whole in self._scripts:
            both = min(len(text), len(whole))
            differs = (whole[:both] != text[:both]).nonzero()
            common = int(differs[0, 0]) if len(differs) else both
            after = {n: int(whole[n]) for n in lengths if prompt <= n <= common and n < len(whole)} | after
            if len(after) == len(lengths):
                break
        return [after.get(n) for n in lengths]


class PuppetEngine(RapidEngine):
    """Tells its model the answer of each request before it is decoded."""

    def stream(self, prompt: Any, **options: Any) -> CompletionStream:
        """Answer with what `writing` was told (an asynchronous request takes it along to its thread), or nothing."""
        global requests_made
        requests_made += 1
        stream = super().stream(prompt, **options)
        ids = self.vocabulary.tokenizer.encode(_answer.get() or "", add_special_tokens=False)
        for read in (stream.prepared.target_ids, stream.prepared.drafter_ids):
            self.target.tell(read, ids)  # type: ignore[attr-defined]
        return stream


@cache
def puppet_engine(chat: bool = True) -> PuppetEngine:
    """Return an engine that every puppet of this process shares: with a chat template that takes tools, or none."""
    tokenizer = any_text_tokenizer(QWEN25 if chat else None)
    eos_id, im_end_id, *closing_ids = tokenizer.convert_tokens_to_ids([EOS, IM_END, *CLOSING])
    return PuppetEngine(
        LoadedModel(PuppetLM(len(tokenizer), eos_id, closing_ids), Vocabulary(tokenizer, [eos_id, im_end_id])),
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=256, min_tokens=512, min_chunks=2),
        sampling=SamplingParams(max_new_tokens=MAX_NEW_TOKENS),
        prefix_cache_bytes=1 << 24,
    )
