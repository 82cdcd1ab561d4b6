"""An engine whose model writes what it is told, request by request; everything else is the product's.

Templates, tokenising, prefill, speculation of the model with itself, verification, streaming, stop strings, grammars,
caches and the parsing of tool calls are real; only the logits are scripted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rapid_integrations import CompressionConfig, PreparedPrompt, RapidEngine, SamplingParams
from rapid_integrations.cache import KVCache
from rapid_integrations.engine.engine import CompletionStream
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import RenderedPrompt
from rapid_integrations.proposers.suite.table_model import TableLM
from tests.toys.chat_templates import QWEN25
from tests.toys.embedder import HashEmbedder
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer

KEPT_SCRIPTS = 200  # requests that may be under way, or be read again, at the same time
VOCAB_SIZE = 262


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
    def read(self, token_ids: Tensor, cache: KVCache, keep: int) -> Tensor:
        """Return logits (keep, V): all but one token of a script are as good as excluded."""
        new = token_ids.shape[0]
        keys = token_ids.view(1, 1, new, 1)
        cache.write(0, keys, keys)
        cache.advance(new)
        text, _ = cache.layer(0)
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
        """Answer with what `told` says, whose control tokens (a call's) are control tokens."""
        made = super().stream(prompt, **options)
        text = self.told(made.prepared, options)
        ids = self.vocabulary.encode_prompt(RenderedPrompt(text, (), (), "", "plain", templated=True))
        for read in (made.prepared.target_ids, made.prepared.drafter_ids):
            self.target.tell(read, ids)  # type: ignore[attr-defined]
        return made

    def told(self, prepared: PreparedPrompt, options: dict[str, Any]) -> str:
        """Return what the model shall write behind a prompt."""
        raise NotImplementedError


class QueuedAnswers(PuppetEngine):
    """Answers its requests with `answers`, in turn; each is a text, or a function of the prepared prompt.

    Attributes:
        seen: what the models read, request by request.
        asked: the options of each request.
    """

    def told(self, prepared, options):
        answer = self.answers.popleft() if self.answers else ""
        self.seen.append(prepared)
        self.asked.append(options)
        return answer(prepared) if callable(answer) else answer


def puppet(*answers, chat_template=QWEN25, **options):
    """Return an engine that writes `answers`."""
    tokenizer = byte_tokenizer(chat_template=chat_template, extra_tokens=("<tool_call>", "</tool_call>"))
    settings = {
        "embedder": HashEmbedder(),
        "compression": CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        "sampling": SamplingParams(max_new_tokens=400),
        **options,
    }
    model = LoadedModel(PuppetLM(VOCAB_SIZE, IM_END_ID), Vocabulary(tokenizer, [EOS_ID, IM_END_ID]))
    engine = QueuedAnswers(model, **settings)
    engine.answers, engine.seen, engine.asked = deque(answers), [], []
    return engine


def call(name, arguments):
    """Return what a model with Qwen's template writes to call a tool; `arguments` as JSON."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
