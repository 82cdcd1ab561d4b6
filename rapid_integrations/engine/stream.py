"""A running answer: what `RapidEngine.stream` returns."""

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

    Its KV caches then go to the engine's prefix cache, as far as that has room, and are freed otherwise. Where the
    engine is closed before the answer has ended, the next piece raises `EngineClosedError`.

    Attributes:
        prepared: what each model reads.
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
        self._over = False  # it has ended, or its reader has closed it
        self._tracer = tracer

    @property
    def trace(self) -> Trace | None:
        """What was recorded so far, where the request asked for it."""
        return None if self._tracer is None else self._tracer.trace()

    @computes
    def __next__(self) -> CompletionChunk:
        if not self._over:
            self._life.require()
        try:
            chunk = next(self._chunks)
        except ValueError:  # the engine closes it in another thread just now: "generator already executing"
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
        self._chunks.close()

    @computes
    def end_with_engine(self) -> None:
        """Free the caches, unless another thread is decoding: then the request notices that the engine is closed."""
        with suppress(ValueError):  # "generator already executing"
            self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
