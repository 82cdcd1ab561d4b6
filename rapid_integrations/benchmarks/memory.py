"""Measure the peak memory of a question by part, for several context lengths.

Weights, embedder and KV caches are sums of tensor sizes. The rest of the process is measured as a whole:

idle          in use before the question, less weights and embedder: the interpreter, libraries, leftovers of loading
activations   the peak during prefill (and during decoding), less all of the above and the KV caches
shared        no part of that peak: the target's KV caches of several questions about the document at once
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import torch

from rapid_integrations.benchmarks.peak_memory import PeakMemory
from rapid_integrations.benchmarks.prompts import prompt_of_length, room_beside
from rapid_integrations.cache import KVCache, distinct_bytes
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.decoding.reader import PREFILL_CHUNK
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.evaluation.timing import describe_machine
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.progress import OnProgress

SHARED_QUESTIONS = 8
PARTS: Final = (
    "weights_target",
    "weights_drafter",
    "kv_target",
    "kv_drafter",
    "embedder",
    "idle",
    "activations_prefill",
)
"""The parts of the peak during prefill."""


@dataclass(frozen=True)
class Peak:
    """Bytes of one question by part, as the module explains.

    Attributes:
        prompt_tokens, drafter_tokens: lengths of the two models' prompts.
        weights_drafter: weights of all models but the target; 0 if it drafts for itself.
        activations_decode: the activations at the peak of decoding.
        peak: most bytes in use.
        kv_shared: bytes of the target's KV caches if `SHARED_QUESTIONS` ask about the document at once.
    """

    prompt_tokens: int
    drafter_tokens: int
    weights_target: int
    weights_drafter: int
    kv_target: int
    kv_drafter: int
    embedder: int
    idle: int
    activations_prefill: int
    activations_decode: int
    peak: int
    kv_shared: int


@dataclass
class MemoryResult:
    """The peaks, by context length, shortest first."""

    target: str
    drafter: str
    source: str
    machine: dict[str, str | int]
    hidden_states_per_token: int | None
    peaks: list[Peak] = field(default_factory=list)

    def per_token(self, part: str) -> float | None:
        """Return the bytes by which a part grows with each token of context, from the shortest to the longest.

        Prompts of a single prefill chunk do not count, because activations grow with the chunk up to there. The
        result is None if fewer than two lengths remain.
        """
        peaks = [peak for peak in self.peaks if peak.prompt_tokens > PREFILL_CHUNK]
        if len(peaks) < 2 or peaks[0].prompt_tokens == peaks[-1].prompt_tokens:
            return None
        grown = getattr(peaks[-1], part) - getattr(peaks[0], part)
        return float(grown / (peaks[-1].prompt_tokens - peaks[0].prompt_tokens))

    @property
    def bounded(self) -> bool | None:
        """Whether activations grow by less than one hidden state per token and layer; None if that is unknown.

        Anything that is kept for each token in each layer takes more than that.
        """
        grown = self.per_token("activations_prefill")
        if grown is None or self.hidden_states_per_token is None:
            return None
        return grown < self.hidden_states_per_token

    def summary(self) -> dict[str, Any]:
        """Return everything, ready for JSON; bytes."""
        parts = ("kv_target", "kv_drafter", "activations_prefill", "activations_decode")
        grown = {part: self.per_token(part) for part in parts}
        return {
            "benchmark": "memory",
            "peaks": [asdict(peak) for peak in self.peaks],
            "bytes_per_token_of_context": {part: None if b is None else round(b, 1) for part, b in grown.items()},
            "hidden_states_per_token": self.hidden_states_per_token,
            "no_other_term_grows_with_context_times_layers": self.bounded,
            "peak_from": self.source,
            "target": self.target,
            "drafter": self.drafter,
            "machine": self.machine,
        }


def measure_memory(
    engine: RapidEngine,
    question: Question,
    *,
    contexts: Sequence[int],
    new_tokens: int,
    speculation: SpeculationConfig,
    embedder: torch.nn.Module | None,
    on_progress: OnProgress,
) -> MemoryResult:
    """Measure a question over longer and longer parts of its document.

    Args:
        engine: must not have a prefix cache, whose memory belongs to no question.
        question: its document should be as long as the longest context.
        contexts: maximum lengths of the target's prompt, in tokens.
        new_tokens: maximum length of an answer.
        speculation: settings of the requests.
        embedder: the loaded module of the engine's compressor; None counts none.
        on_progress: is called with ("benchmark", done, total).

    Raises:
        ConfigurationError: the engine has a prefix cache.
    """
    if engine.reuses_prefixes:
        raise ConfigurationError(
            "a prefix cache takes memory that belongs to no question: build the engine with prefix_cache_bytes=0 and "
            "without prefix_cache_dir"
        )
    memory = PeakMemory(engine.target.device)
    result = MemoryResult(
        engine.target.name,
        engine.drafter.name,
        memory.source,
        describe_machine(engine.target.device),
        _hidden_states_per_token(engine.target),
    )
    models = list({id(lm): lm for lm in (engine.target, engine.drafter, engine.draft_lm) if lm is not None}.values())
    fixed = {
        "weights_target": _weights(engine.target),
        "weights_drafter": sum(_weights(lm) for lm in models[1:]),
        "embedder": 0 if embedder is None else _tensor_bytes(embedder),
    }
    sampling = SamplingParams(max_new_tokens=new_tokens)
    try:
        warm_up = prompt_of_length(engine, question, room_beside(engine, new_tokens, min(contexts)))
        engine.generate(warm_up, sampling=sampling, speculation=speculation)
        for number, context in enumerate(sorted(set(contexts))):
            on_progress("benchmark", number, len(set(contexts)))
            prompt = prompt_of_length(engine, question, room_beside(engine, new_tokens, context))
            idle = memory.now()
            with (
                _caches_of(*models) as caches,
                engine.stream(prompt, sampling=sampling, speculation=speculation) as stream,
            ):
                memory.reset()
                next(stream)
                prefill = memory.peak()
                memory.reset()
                for _ in stream:
                    pass
                decode = memory.peak()
                kv = [cache.nbytes for cache in caches]  # the target's cache was created first
                kv_shared = _shared_bytes(caches[0], len(stream.prepared.target_ids), new_tokens)
                caches.clear()
            kv_target, kv_drafter = kv[0], sum(kv[1:])
            held = idle + kv_target + kv_drafter
            result.peaks.append(
                Peak(
                    prompt_tokens=len(stream.prepared.target_ids),
                    drafter_tokens=len(stream.prepared.drafter_ids) if kv_drafter else 0,
                    kv_target=kv_target,
                    kv_drafter=kv_drafter,
                    idle=idle - sum(fixed.values()),
                    activations_prefill=prefill - held,
                    activations_decode=decode - held,
                    peak=max(prefill, decode),
                    kv_shared=kv_shared,
                    **fixed,
                )
            )
        on_progress("benchmark", len(set(contexts)), len(set(contexts)))
    finally:
        memory.close()
    return result


@contextmanager
def _caches_of(*models: CausalLM) -> Iterator[list[KVCache]]:
    """Record the KV caches that the models create inside this block."""
    made: list[KVCache] = []
    distinct = {id(model): model for model in models}.values()

    def noting(new_cache: Any) -> Any:
        def note(capacity: int) -> KVCache:
            made.append(new_cache(capacity))
            return made[-1]

        return note

    for model in distinct:
        setattr(model, "new_cache", noting(model.new_cache))  # noqa: B010
    try:
        yield made
    finally:
        for model in distinct:
            delattr(model, "new_cache")


def _shared_bytes(cache: KVCache, prompt_tokens: int, new_tokens: int) -> int:
    """Return the bytes of a question's cache and of those of further questions that share its prompt."""
    capacity = prompt_tokens + new_tokens
    forks = [cache.fork(prompt_tokens - 1, capacity) for _ in range(SHARED_QUESTIONS - 1)]
    return distinct_bytes([cache, *forks])


def _weights(lm: CausalLM) -> int:
    """Return the bytes of a model's weights, including matrices that were packed out of it."""
    module = getattr(lm, "model", None)
    if module is None:
        return lm.weight_bytes
    packed = any(not parameter.numel() for parameter in module.parameters())
    return _tensor_bytes(module) + (lm.weight_bytes if packed else 0)


def _tensor_bytes(module: Any) -> int:
    """Return the bytes of a module's parameters and buffers, each counted once."""
    if module is None:
        return 0
    if not hasattr(module, "buffers"):  # an embedder that runs without a module of torch
        return sum({id(t): t.nbytes for t in module.state_dict().values()}.values())
    return sum({id(t): t.nbytes for t in (*module.parameters(), *module.buffers())}.values())


def _hidden_states_per_token(lm: CausalLM) -> int | None:
    """Return the bytes of one hidden state in every layer: layers x hidden size x bytes of the dtype."""
    model = getattr(lm, "model", None)
    if model is None:
        return None
    composite = getattr(model.config, "get_text_config", None)
    config = model.config if composite is None else composite(decoder=True)
    return int(config.num_hidden_layers * config.hidden_size * getattr(lm, "dtype", torch.float32).itemsize)
