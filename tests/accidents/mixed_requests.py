"""Requests of every length and every outcome, as a long-running program sees them."""

import asyncio
import random

import pytest

from rapid_integrations import (
    ContextOverflowError,
    OutOfMemoryError,
    Prompt,
    PromptError,
    RapidEngine,
    SamplingParams,
    SpeculationConfig,
)
from rapid_integrations.cache import KVCache
from tests.toys.models import words

OUTCOMES = (
    "whole",
    "sampled",
    "stop string",
    "closed early",
    "left undrained",
    "a call inside a loop",
    "progress that fails",
    "out of memory",
    "over the window",
    "empty",
    "asynchronous",
    "cancelled",
    "four at once",
)


def one_request(engine: RapidEngine, number: int, outcome: str) -> None:
    """Ask one question; its length follows from `number`."""
    rng = random.Random(number)
    prompt = Prompt.from_context(words(number % 17, rng.choice((20, 60, 120, 250))), f"question {number}?")
    new = SamplingParams(max_new_tokens=rng.choice((1, 4, 16)))
    proposer = SpeculationConfig(proposer=rng.choice(("drafter", "prompt_lookup", "hybrid")))
    options = {"sampling": new, "speculation": proposer}
    if outcome == "whole":
        engine.generate(prompt, **options)
    elif outcome == "sampled":
        engine.generate(prompt, sampling=SamplingParams(max_new_tokens=8, temperature=1.0, seed=number))
    elif outcome == "stop string":
        engine.generate(prompt, sampling=SamplingParams(max_new_tokens=16, stop=("a", "e", "i")))
    elif outcome == "closed early":
        with engine.stream(prompt, **options) as stream:
            next(stream)
    elif outcome == "left undrained":
        next(engine.stream(prompt, **options))
    elif outcome == "a call inside a loop":
        for _ in engine.stream(prompt, **options):
            engine.generate("where is the cat?", sampling=SamplingParams(max_new_tokens=2))
    elif outcome == "progress that fails":

        def fail(stage, done, total):
            if stage == "prefill target":
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            engine.generate(prompt, on_progress=fail, **options)
    elif outcome == "out of memory":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KVCache, "_allocate", _no_memory)
            engine.clear_prefix_cache()
            with pytest.raises(OutOfMemoryError):
                engine.generate(prompt, **options)
    elif outcome == "over the window":
        with pytest.raises(ContextOverflowError):
            engine.generate(prompt, sampling=SamplingParams(max_new_tokens=100_000))
    elif outcome == "empty":
        with pytest.raises(PromptError):
            engine.generate("  ")
    elif outcome == "asynchronous":
        asyncio.run(engine.agenerate(prompt, **options))
    elif outcome == "cancelled":
        asyncio.run(_cancelled(engine, prompt))
    elif outcome == "four at once":
        asyncio.run(_at_once(engine, prompt, options))
    else:
        raise AssertionError(outcome)


def _no_memory(*_):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")


async def _cancelled(engine, prompt):
    task = asyncio.create_task(engine.agenerate(prompt, sampling=SamplingParams(max_new_tokens=500)))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _at_once(engine, prompt, options):
    await asyncio.gather(*(engine.agenerate(prompt, **options) for _ in range(4)))
