"""Asynchronous streams: the event loop waits for the worker as threads do."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.errors import RunningAnswer
from rapid_integrations.outputs import CompletionChunk, Trace
from rapid_integrations.progress import ignore_progress
from rapid_integrations.prompt import PromptLike

if TYPE_CHECKING:
    from rapid_integrations.engine.answering import AnsweringEngine
    from rapid_integrations.engine.stream import CompletionStream

T = TypeVar("T")
_PATIENCE_S = 10.0  # retrieval looks after each piece whether it is still wanted


class RequestCancelled(BaseException):
    """Raised in the thread that prepares a request which nobody waits for any more. Callers never see it."""


class AsyncCompletionStream(RunningAnswer, AsyncIterator[CompletionChunk]):
    """A running answer, for `async for`. Close it (or leave its `async with` block) to stop early.

    Cancelling the task that awaits a piece stops the request within one forward pass and frees its caches.

    Attributes:
        prepared: the prompts of both models.
    """

    def __init__(self, stream: CompletionStream) -> None:
        self.prepared: PreparedPrompt = stream.prepared
        self._stream = stream

    @classmethod
    async def start(cls, engine: AnsweringEngine, prompt: PromptLike, options: dict[str, Any]) -> AsyncCompletionStream:
        """Prepare the request in a thread. Errors of the request are raised here."""
        return cls(await prepared_in_thread(engine, partial(engine.stream, prompt), options))

    @property
    def trace(self) -> Trace | None:
        """See `CompletionStream.trace`."""
        return self._stream.trace

    async def __anext__(self) -> CompletionChunk:
        try:
            piece = await self._stream.anext()
        except asyncio.CancelledError:
            self._stream.cancel()
            raise
        if piece is None:
            raise StopAsyncIteration
        if piece.finish_reason is None:
            return piece
        return await in_thread(lambda: self._stream.with_sources(piece))

    async def aclose(self) -> None:
        """Stop decoding and free the caches; safe to call again. It waits for a pass that is being made."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def prepared_in_thread(engine: AnsweringEngine, prepare: Callable[..., T], options: dict[str, Any]) -> T:
    """Call `prepare` with `options` in a thread. A cancelled task stops it at its next report of progress."""
    engine.require_open()  # before anything waits for a thread: a forked child has none
    cancelled = threading.Event()
    report = options.pop("on_progress", None) or ignore_progress

    def unless_cancelled(stage: str, done: int, total: int) -> None:
        if cancelled.is_set() or _ENDING.is_set():
            raise RequestCancelled
        report(stage, done, total)

    try:
        return await in_thread(lambda: prepare(on_progress=unless_cancelled, **options))
    except asyncio.CancelledError:
        cancelled.set()  # retrieval cannot be interrupted; it looks at this after each piece
        raise


async def in_thread(call: Callable[[], T]) -> T:
    """Run `call` in a thread of its own and return its result. It keeps running if the waiting task is cancelled.

    asyncio's own pool is small, and the application's other work needs it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome = context.run(_outcome, call)
            loop.call_soon_threadsafe(_settle, done, outcome)
        except RuntimeError:  # the loop has been closed, and whoever waited in it is gone
            return
        finally:
            _RUNNING.discard(thread)

    thread = threading.Thread(target=run, name="rapid preparation", daemon=True)
    _RUNNING.add(thread)
    thread.start()
    result, error = await done
    if error is not None:
        raise error
    return cast(T, result)


def _settle(done: asyncio.Future[T], outcome: T) -> None:
    if not done.done():
        done.set_result(outcome)


def _outcome(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Return the result or the error. asyncio would log a raised error that is not fetched, as after a cancellation."""
    try:
        return call(), None
    except BaseException as error:
        return None, error


_RUNNING: set[threading.Thread] = set()  # also of tasks that were cancelled: a thread is not stopped from outside
_ENDING = threading.Event()


@atexit.register
def _end() -> None:
    """Wait for threads that still compute, whatever Ctrl-C says, for `_PATIENCE_S` at most.

    Python ends a daemon thread that comes back from native code while the interpreter shuts down. That unwinds the
    frames of PyTorch and of tokenizers, which aborts the process.
    """
    _ENDING.set()
    end = time.monotonic() + _PATIENCE_S
    for thread in tuple(_RUNNING):
        while thread.is_alive() and (left := end - time.monotonic()) > 0:
            with suppress(KeyboardInterrupt):
                thread.join(left)
