"""The running answers to one request: their pieces come in the order in which they are decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from rapid_integrations.config import SamplingParams
from rapid_integrations.engine.async_stream import AsyncCompletionStream
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ContextOverflowError, RapidError
from rapid_integrations.outputs import CompletionChunk, TracedToken
from rapid_integrations.server.prompts import ServedPrompt

_ROOM = 16  # pieces that may wait for the client; the answers pause beyond


@dataclass(frozen=True)
class Ask:
    """One answer that is asked for.

    Attributes:
        prompt: the prompt and its documents.
        sampling: the settings of its tokens.
        options: the further arguments of `RapidEngine.stream`.
        fitted: whether the answer may be shorter than `max_new_tokens`, so that it fits the context window.
        provisional: whether the drafter's own answer is wanted while the target reads.
    """

    prompt: ServedPrompt
    sampling: SamplingParams
    options: dict[str, Any] = field(default_factory=dict)
    fitted: bool = False
    provisional: bool = False


@dataclass(frozen=True)
class Piece:
    """A piece of the answer number `index`, with the records of its tokens if they were asked for."""

    index: int
    chunk: CompletionChunk
    tokens: tuple[TracedToken, ...] = ()


@dataclass(frozen=True)
class Reading:
    """Progress of the reading of a prompt."""

    index: int
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Provisional:
    """A piece of the drafter's own answer, which comes before the answer number `index`."""

    index: int
    text: str


Event: TypeAlias = Piece | Reading | Provisional


class Choices:
    """Answers that run together, for `async for`."""

    def __init__(self, asks: Sequence[Ask]) -> None:
        self.asks = asks
        self.streams: list[AsyncCompletionStream] = []
        self._events: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(_ROOM)
        self._loop = asyncio.get_running_loop()
        self._running = 0
        self._provisional: dict[int, asyncio.Future[None]] = {}  # by the answer's index

    @classmethod
    @asynccontextmanager
    async def open(cls, engine: RapidEngine, asks: Sequence[Ask]) -> AsyncIterator[Choices]:
        """Prepare the requests; close them at the end of the block. Errors of the requests are raised here."""
        choices = cls(asks)
        tasks = [asyncio.ensure_future(choices._opened(engine, index, ask)) for index, ask in enumerate(asks)]
        followers: list[asyncio.Future[None]] = []
        try:
            choices.streams = list(await asyncio.gather(*tasks))
            choices._running = len(tasks)
            for index, ask in enumerate(asks):
                if ask.provisional:  # its prompt is read first
                    choices._provisional[index] = asyncio.ensure_future(choices._guess(engine, index))
            followers = [asyncio.ensure_future(choices._follow(index)) for index in range(len(tasks))]
            yield choices
        finally:
            for task in tasks:
                task.cancel()
            followers += choices._provisional.values()
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
            for opened in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(opened, AsyncCompletionStream):
                    await opened.aclose()

    def __aiter__(self) -> Choices:
        return self

    async def __anext__(self) -> Event:
        while self._running:
            event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            if event is not None:
                return event
            self._running -= 1
        raise StopAsyncIteration

    async def _opened(self, engine: RapidEngine, index: int, ask: Ask) -> AsyncCompletionStream:
        def report(stage: str, done: int, total: int) -> None:
            self._loop.call_soon_threadsafe(self._tell, Reading(index, stage, done, total))

        try:
            return await engine.astream(ask.prompt.prompt, sampling=ask.sampling, on_progress=report, **ask.options)
        except ContextOverflowError as error:
            room = error.context_window - error.prompt_tokens
            if not ask.fitted or not 0 < room < ask.sampling.max_new_tokens:
                raise
            shorter = ask.sampling.model_copy(update={"max_new_tokens": room})
            return await self._opened(engine, index, replace(ask, sampling=shorter, fitted=False))

    def _tell(self, event: Reading) -> None:
        if not self._events.full():  # the next report says more than this one
            self._events.put_nowait(event)

    async def _guess(self, engine: RapidEngine, index: int) -> None:
        """Pass on the drafter's own answer. It is a courtesy: whatever it fails with, the answer itself may succeed."""
        with suppress(RapidError):
            stream = engine.drafter_stream(self.streams[index].prepared, sampling=self.asks[index].sampling)
            if stream is None:
                return
            async with AsyncCompletionStream(stream) as guess:
                async for chunk in guess:
                    await self._events.put(Provisional(index, chunk.text))

    async def _follow(self, index: int) -> None:
        stream = self.streams[index]
        traced = 0
        try:
            async for chunk in stream:
                if (guess := self._provisional.get(index)) is not None:
                    guess.cancel()
                tokens: tuple[TracedToken, ...] = ()
                if (trace := stream.trace) is not None:
                    tokens = trace.tokens[traced : traced + len(chunk.token_ids)]
                    traced += len(tokens)
                await self._events.put(Piece(index, chunk, tokens))
            await self._events.put(None)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await self._events.put(error)
