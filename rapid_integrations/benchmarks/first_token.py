"""Time one question from the call to the first token, by part, and to the last token."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.outputs import Completion
from rapid_integrations.prompt import Prompt


@dataclass(frozen=True)
class Answered:
    """The times of an answer, in seconds.

    Attributes:
        first_token_s: from the call to the first tokens; the sum of the next four and of rendering and tokenizing.
        retrieval_s: embedding, search and selection.
        target_s: the target's prefill, including the loading of a cached prefix.
        drafter_s: the drafter's prefill.
        first_round_s: the first decoding round.
        total_s: to the end of the answer.
        tokens: number of tokens of the answer.
        prompt_tokens, cached_tokens: number of tokens of the target's prompt, and how many of them were cached.
        first_token_cpu_s: processor seconds of this process, all threads, from the call to the first tokens.
    """

    first_token_s: float
    retrieval_s: float
    target_s: float
    drafter_s: float
    first_round_s: float
    total_s: float
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    first_token_cpu_s: float


class _Prefills:
    """An `OnProgress` that notes when each model's prefill ended."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.ended: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage.startswith("prefill"):
            self.ended[stage.removeprefix("prefill ")] = self.now()

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def answer(
    engine: RapidEngine,
    prompt: Prompt,
    speculation: SpeculationConfig,
    new_tokens: int,
    compression: CompressionConfig | None = None,
) -> tuple[Answered, Completion]:
    """Answer a prompt greedily, and time it."""
    prefills = _Prefills(engine.target.device)
    called, cpu = prefills.now(), time.process_time()
    sampling = SamplingParams(max_new_tokens=new_tokens)
    with engine.stream(
        prompt, sampling=sampling, speculation=speculation, compression=compression, on_progress=prefills
    ) as stream:
        prepared = prefills.now()
        chunks = [next(stream)]
        first, first_cpu = prefills.now(), time.process_time()
        chunks += stream
        completion = Completion.join(chunks, stream.prepared.retrieved)
    target = prefills.ended.get("target", prepared)
    drafter = prefills.ended.get("drafter", target)
    timed = Answered(
        first_token_s=first - called,
        retrieval_s=completion.stats.compress_s if completion.retrieved else 0.0,
        target_s=target - prepared,
        drafter_s=drafter - target,
        first_round_s=first - drafter,
        total_s=prefills.now() - called,
        tokens=len(completion.token_ids),
        prompt_tokens=completion.usage.prompt_tokens,
        cached_tokens=completion.stats.cached_prompt_tokens,
        first_token_cpu_s=first_cpu - cpu,
    )
    return timed, completion
