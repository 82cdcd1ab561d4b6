"""`CompletionStream`: the running answer that `RapidEngine.stream` returns."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from rapid_integrations.engine.life import EngineLife
from rapid_integrations.engine.outbox import Ended, Event, Outbox, Progress
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.errors import EngineClosedError, RunningAnswer
from rapid_integrations.outputs import CompletionChunk, Source, Trace
from rapid_integrations.progress import OnProgress


class Running(Protocol):
    """A request as its stream sees it: a `Job`, or one at a server."""

    outbox: Outbox

    def cancel(self) -> None:
        """End it soon; safe in any thread."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """Free everything, and tell the caller."""
        ...


class Submits(Protocol):
    """What takes a request: a `Worker`, or a request that has been sent to a server."""

    def submit(self, job: Any) -> None:
        """Take it."""
        ...


class Traces(Protocol):
    """What records an answer: a `Tracer`, or one at a server."""

    def trace(self) -> Trace:
        """Return what was recorded so far."""
        ...


class CompletionStream(RunningAnswer, Iterator[CompletionChunk]):
    """A running answer. Iterate over it; close it (or leave its `with` block) to stop early.

    The request begins with the first piece that is asked for. It then runs some pieces ahead of its reader, together
    with the engine's other requests. When it ends, its KV caches go to the engine's prefix cache if that has room, and
    are freed otherwise. If the engine is closed before the answer has ended, the next piece raises `EngineClosedError`.

    Attributes:
        prepared: the prompts of both models.
    """

    def __init__(
        self,
        prepared: PreparedPrompt,
        job: Running,
        worker: Submits,
        life: EngineLife,
        report: OnProgress,
        tracer: Traces | None = None,
        sources_of: Callable[[str], tuple[Source, ...]] | None = None,
    ) -> None:
        self.prepared = prepared
        self._sources_of, self._text = sources_of, ""
        self._tokens, self._finished = 0, False  # handed out; whether the last piece was
        self._job, self._worker, self._life, self._report, self._tracer = job, worker, life, report, tracer
        self._begun = False
        self._over = False  # whether it has ended or was closed
        # Nobody can read it any more once it is garbage.
        self._forgotten = weakref.finalize(self, job.cancel)
        self._forgotten.atexit = False

    @property
    def trace(self) -> Trace | None:
        """The record of the tokens that were handed out; None unless the request asked for it (`trace=True`).

        Rounds of which the reader has not yet had every token are left out: the engine runs ahead of it.
        """
        if self._tracer is None:
            return None
        trace = self._tracer.trace()
        return trace if self._finished else trace.up_to(self._tokens)

    def __next__(self) -> CompletionChunk:
        while True:
            self._begin()
            if (piece := self._received(self._job.outbox.get())) is not None:
                return self.with_sources(piece)

    async def anext(self) -> CompletionChunk | None:
        """Return the next piece without blocking the event loop; None after the last one.

        The last one lacks its sources, which take a moment of computing: `with_sources` adds them.
        """
        try:
            while True:
                self._begin()
                if (piece := self._received(await self._job.outbox.aget())) is not None:
                    return piece
        except StopIteration:
            return None

    def with_sources(self, piece: CompletionChunk) -> CompletionChunk:
        """Return a piece with the answer's sources if it is the last one. A server has found them already."""
        if piece.finish_reason in (None, "abstained") or self._sources_of is None:
            return piece
        return piece.model_copy(update={"sources": self._sources_of(self._text)})

    def close(self) -> None:
        """Stop decoding and give the caches back; safe to call again. It waits for a pass that is being made."""
        if self._stop():
            self._job.outbox.wait_until_ended()

    async def aclose(self) -> None:
        """Do what `close` does without blocking the event loop."""
        if self._stop():
            await self._job.outbox.await_ended()

    def cancel(self) -> None:
        """Do what `close` does without waiting."""
        self._stop()

    def end_with_engine(self) -> None:
        """Free a request that has not begun, when the engine is closed. The worker ends those that have."""
        if not self._begun:
            self._job.end(EngineClosedError())

    def _begin(self) -> None:
        """Submit the request, unless that has been done.

        Raises:
            StopIteration: the answer is over.
            EngineClosedError, ForkedProcessError: see `EngineLife.require`.
        """
        if self._over:
            raise StopIteration
        self._life.require()
        if not self._begun:
            self._begun = True
            self._worker.submit(self._job)

    def _received(self, event: Event) -> CompletionChunk | None:
        if isinstance(event, Progress):
            try:
                self._report(event.stage, event.done, event.total)
            except BaseException:
                self._stop()
                raise
            return None
        if isinstance(event, Ended):
            if event.error is not None:  # as often as it is asked, so that no answer merely looks complete
                raise event.error
            self._over = True
            raise StopIteration
        self._text += event.text
        self._tokens += len(event.token_ids)
        if event.finish_reason is not None:
            self._over = self._finished = True
        return event

    def _stop(self) -> bool:
        """End the request. Return whether the worker has it, and has yet to let go of it."""
        self._over = True
        if not self._begun:
            self._job.end()
        if not self._begun or self._life.inherited:
            return False
        self._job.cancel()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
