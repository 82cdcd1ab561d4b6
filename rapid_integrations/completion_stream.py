"""A running answer: what `RapidEngine.stream` returns."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

from rapid_integrations.outputs import CompletionChunk
from rapid_integrations.prepared import PreparedPrompt
from rapid_integrations.trace.record import Trace
from rapid_integrations.trace.tracer import Tracer


class CompletionStream(Iterator[CompletionChunk]):
    """A running answer. Iterate over it; close it (or leave its `with` block) to stop early.

    Its KV caches then go to the engine's prefix cache, as far as that has room, and are freed otherwise.

    Attributes:
        prepared: what each model reads.
    """

    def __init__(
        self, prepared: PreparedPrompt, chunks: Generator[CompletionChunk, None, None], tracer: Tracer | None = None
    ) -> None:
        self.prepared = prepared
        self._chunks = chunks
        self._tracer = tracer

    @property
    def trace(self) -> Trace | None:
        """What was recorded so far, where the request asked for it."""
        return None if self._tracer is None else self._tracer.trace()

    def __next__(self) -> CompletionChunk:
        return next(self._chunks)

    def close(self) -> None:
        """Stop decoding and give the caches back; safe to call again."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
