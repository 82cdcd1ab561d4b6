"""`CompletionStream`: the running answer that `RapidEngine.stream` returns."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from rapid_integrations.engine.forked import computes
from rapid_integrations.engine.life import EngineLife
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.errors import EngineClosedError, RunningAnswer
from rapid_integrations.outputs import CompletionChunk, Trace
from rapid_integrations.trace.tracer import Tracer


class CompletionStream(RunningAnswer, Iterator[CompletionChunk]):
    """A running answer. Iterate over it; close it (or leave its `with` block) to stop early.

    When it ends, its KV caches go to the engine's prefix cache if that has room, and are freed otherwise. If the
    engine is closed before the answer has ended, the next piece raises `EngineClosedError`.

    Attributes:
        prepared: the prompts of both models.
    """

    def __init__(
        self,
        prepared: PreparedPrompt,
        chunks: Generator[CompletionChunk, None, None],
        tracer: Tracer | None = None,
        life: EngineLife | None = None,
    ) -> None:
        self.prepared = prepared
        self._chunks = chunks
        self._life = life or EngineLife()
        self._over = False  # whether it has ended or was closed
        self._tracer = tracer

    @property
    def trace(self) -> Trace | None:
        """The record so far; None unless the request asked for it (`trace=True`)."""
        return None if self._tracer is None else self._tracer.trace()

    @computes
    def __next__(self) -> CompletionChunk:
        if not self._over:
            self._life.require()
        try:
            chunk = next(self._chunks)
        except ValueError:  # "generator already executing": another thread is closing the engine
            if self._life.closed:
                raise EngineClosedError from None
            raise
        if chunk.finish_reason is not None:
            self._over = True
        return chunk

    @computes
    def close(self) -> None:
        """Stop decoding and give the caches back; safe to call again."""
        self._over = True
        try:
            self._chunks.close()
        except ValueError:  # the engine closes it in another thread just now: "generator already executing"
            if not self._life.closed:
                raise

    @computes
    def end_with_engine(self) -> None:
        """Free the caches. If another thread is decoding, it notices that the engine is closed and frees them."""
        with suppress(ValueError):  # "generator already executing"
            self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
