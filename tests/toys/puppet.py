"""An engine whose model writes what it is told, request by request; everything else is real.

Tokenising, templates, prefill, speculation of the model with itself, verification, streaming, stop strings, grammars
and the parsing of tool calls are the product's; only the logits are scripted.
"""

import threading
from collections import deque

import torch

from rapid_integrations import CompressionConfig, RapidEngine, SamplingParams
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import RenderedPrompt
from tests.toys.chat_templates import QWEN25
from tests.toys.embedder import HashEmbedder
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer
from tests.toys.scripted_lm import TableLM

VOCAB_SIZE = 262


class PuppetLM(TableLM):
    """Behind a prompt that it was told of it writes the answer to it; behind any other nothing."""

    name = "puppet"

    def __init__(self):
        super().__init__(0, VOCAB_SIZE)
        self._scripts = deque(maxlen=64)  # (length of the prompt, prompt and answer)
        self._lock = threading.Lock()

    def tell(self, prompt_ids, answer_ids):
        with self._lock:
            self._scripts.appendleft((len(prompt_ids), torch.tensor([*prompt_ids, *answer_ids, IM_END_ID])))

    @torch.inference_mode()
    def forward(self, token_ids, cache, keep):
        keys = token_ids.view(1, 1, -1, 1)
        text, _ = cache.write(0, keys, keys)
        cache.advance(len(token_ids))
        text = text.flatten()
        with self._lock:
            scripts = list(self._scripts)
        logits = torch.zeros(keep, self.vocab_size)
        for row in range(keep):
            length = len(text) - keep + 1 + row
            fitting = (
                (prompt, int(whole[length]))
                for prompt, whole in scripts
                if prompt <= length < len(whole) and torch.equal(whole[:length], text[:length])
            )
            logits[row, max(fitting, default=(0, EOS_ID))[1]] = 1000.0
        return logits


class PuppetEngine(RapidEngine):
    """Answers its requests with `answers`, in turn; each is a text, or a function of the prepared prompt.

    Attributes:
        seen: what the models read, request by request.
        asked: the options of each request.
    """

    def stream(self, prompt, **options):
        made = super().stream(prompt, **options)
        answer = self.answers.popleft() if self.answers else ""
        text = answer(made.prepared) if callable(answer) else answer
        # Templated: its control tokens (a call's) are control tokens.
        ids = self.vocabulary.encode_prompt(RenderedPrompt(text, (), (), "", "plain", templated=True))
        self.target.tell(made.prepared.target_ids, ids)
        self.target.tell(made.prepared.drafter_ids, ids)
        self.seen.append(made.prepared)
        self.asked.append(options)
        return made


def puppet(*answers, chat_template=QWEN25, **options):
    """Return an engine that writes `answers`."""
    tokenizer = byte_tokenizer(chat_template=chat_template, extra_tokens=("<tool_call>", "</tool_call>"))
    settings = {
        "embedder": HashEmbedder(),
        "compression": CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        "sampling": SamplingParams(max_new_tokens=400),
        **options,
    }
    engine = PuppetEngine(LoadedModel(PuppetLM(), Vocabulary(tokenizer, [EOS_ID, IM_END_ID])), **settings)
    engine.answers, engine.seen, engine.asked = deque(answers), [], []
    return engine


def call(name, arguments):
    """Return what a model with Qwen's template writes to call a tool; `arguments` as JSON."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
