"""Answer the prompts of one call at once, so that they share the engine's passes and what their beginnings share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from langchain_core.runnables.config import ContextThreadPoolExecutor

P = TypeVar("P")
A = TypeVar("A")

AT_ONCE = 16  # prompts; each has a thread and searches its context in it, so more would only wait for each other


def answer_at_once(answer: Callable[[P], A], prompts: Sequence[P]) -> list[A]:
    """Return the answer to each prompt. The first error is raised once the running answers have ended."""
    if len(prompts) == 1:
        return [answer(prompts[0])]
    with ContextThreadPoolExecutor(AT_ONCE, thread_name_prefix="rapid prompt") as pool:
        return list(pool.map(answer, prompts))


async def aanswer_at_once(answer: Callable[[P], Awaitable[A]], prompts: Sequence[P]) -> list[A]:
    """Return the answer to each prompt. After the first error, the other answers are cancelled."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(prompt: P) -> A:
        async with free:
            return await answer(prompt)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(prompt)) for prompt in prompts]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
