"""Asynchronous streams. Worker threads advance them, so the event loop stays free."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.errors import RunningAnswer
from rapid_integrations.outputs import CompletionChunk, Trace
from rapid_integrations.progress import ignore_progress
from rapid_integrations.prompt import PromptLike

if TYPE_CHECKING:
    from rapid_integrations.engine.engine import CompletionStream, RapidEngine

T = TypeVar("T")


def _new_workers() -> ThreadPoolExecutor:
    # Not asyncio's own pool: it is small, and the application's other work needs it. These threads mostly wait, because
    # forward passes take turns.
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="rapid")


_WORKERS = _new_workers()


def _in_child() -> None:
    global _WORKERS
    _WORKERS = _new_workers()  # threads do not survive a fork, and the pool would wait for them


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class RequestCancelled(BaseException):
    """Raised in a worker thread to end a cancelled request. Callers never see it."""


class AsyncCompletionStream(RunningAnswer, AsyncIterator[CompletionChunk]):
    """A running answer, for `async for`. Close it (or leave its `async with` block) to stop early.

    Cancelling the task that awaits a piece stops the request within one forward pass and frees its caches.

    Attributes:
        prepared: the prompts of both models.
    """

    def __init__(self, stream: CompletionStream, cancelled: threading.Event) -> None:
        self.prepared: PreparedPrompt = stream.prepared
        self._stream = stream
        self._life = stream._life
        self._cancelled = cancelled
        self._step = asyncio.Lock()  # a generator runs one step at a time
        # The worker closes a cancelled stream at the end of its step. Between two steps, the canceller closes it. This
        # lock guards `_stepping`, which tells both who has to.
        self._turn = threading.Lock()
        self._stepping = False

    @classmethod
    async def start(cls, engine: RapidEngine, prompt: PromptLike, options: dict[str, Any]) -> AsyncCompletionStream:
        """Prepare the request in a worker thread. Errors of the request are raised here."""
        engine.require_open()  # before anything waits for a thread: a forked child has none
        cancelled = threading.Event()
        report = options.pop("on_progress", None) or ignore_progress

        def unless_cancelled(stage: str, done: int, total: int) -> None:
            if cancelled.is_set():
                raise RequestCancelled
            report(stage, done, total)

        def prepare() -> CompletionStream:
            return engine.stream(prompt, on_progress=unless_cancelled, **options)

        return cls(await _result(_submit(prepare), cancelled), cancelled)

    @property
    def trace(self) -> Trace | None:
        """The record so far; None unless the request asked for it (`trace=True`)."""
        return self._stream.trace

    async def __anext__(self) -> CompletionChunk:
        if self._life.inherited:
            self._life.require()
        async with self._step:
            step = _submit(self._advance)
            try:
                chunk: CompletionChunk | None = await _result(step, self._cancelled)
            except asyncio.CancelledError:
                self._free_when_idle()
                raise
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Stop decoding and free the caches; safe to call again.

        If a step is still running because its task was cancelled, the caches are freed after its forward pass.
        """
        self._cancelled.set()
        self._free_when_idle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _advance(self) -> CompletionChunk | None:
        with self._turn:
            if self._cancelled.is_set():
                return None
            self._stepping = True
        try:
            return next(self._stream, None)
        finally:
            with self._turn:
                self._stepping = False
                if self._cancelled.is_set():
                    self._stream.close()

    def _free_when_idle(self) -> None:
        with self._turn:
            if not self._stepping:
                self._stream.close()


async def in_worker(call: Callable[[], T]) -> T:
    """Run `call` in a worker thread and return its result. It keeps running if the waiting task is cancelled."""
    return await _result(_submit(call), threading.Event())


def _submit(call: Callable[[], T]) -> asyncio.Future[tuple[T | None, BaseException | None]]:
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(_WORKERS, context.run, _outcome, call)


async def _result(future: asyncio.Future[tuple[T | None, BaseException | None]], cancelled: threading.Event) -> T:
    """Return the result of the worker's call, or raise its error."""
    try:
        result, error = await asyncio.shield(future)
    except asyncio.CancelledError:
        cancelled.set()  # a forward pass cannot be interrupted; the worker checks this right after it
        raise
    if error is not None:
        raise error
    return cast(T, result)


def _outcome(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Return the result or the error. asyncio would log a raised error that is not fetched, as after a cancellation."""
    try:
        return call(), None
    except BaseException as error:
        return None, error
