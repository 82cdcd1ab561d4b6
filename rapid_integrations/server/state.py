"""What the endpoints of one server share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rapid_integrations.compression.default_compressor import DefaultCompressor
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.server.deadlines import Deadlines
from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.file_store import FileStore
from rapid_integrations.server.metrics import Metrics
from rapid_integrations.server.reading import BackgroundReading
from rapid_integrations.server.settings import ServerSettings
from rapid_integrations.server.turns import Turns


@dataclass(frozen=True)
class ServerState:
    """The parts of a server.

    Attributes:
        engine: answers the requests.
        settings: limits, places and times.
        files: the uploaded documents.
        reading: reads them.
        turns: who may use the engine.
        embedding_turns: who may use its embedder. They need not wait for long answers.
        deadlines: when running answers have to end.
        metrics: what is counted.
        started_at: Unix time in seconds.
    """

    engine: RapidEngine
    settings: ServerSettings
    files: FileStore
    reading: BackgroundReading
    turns: Turns
    embedding_turns: Turns
    deadlines: Deadlines
    metrics: Metrics
    started_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def model_name(self) -> str:
        """The name of the model for clients."""
        return self.settings.model_name or Path(self.engine.target.name).name

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and keep it, within the time limit of an answer.

        Raises:
            ApiError: see `Turns.turn` and `Deadlines.limit`.
        """
        async with self.deadlines.limit(), self.turns.turn():
            yield

    @asynccontextmanager
    async def embedding_turn(self) -> AsyncIterator[None]:
        """As `turn`, for the embedder."""
        async with self.deadlines.limit(), self.embedding_turns.turn():
            yield

    @property
    def embedder_name(self) -> str | None:
        """The name of the model that makes embeddings, None if there is none."""
        compressor = self.engine.compressor
        return compressor.embedder_name if isinstance(compressor, DefaultCompressor) else None

    def require_embedder(self, name: str) -> None:
        """Refuse a name that is not that of the model for embeddings.

        Raises:
            ApiError: there is no such model (404).
        """
        if name != self.embedder_name:
            raise ApiError(
                404,
                f"The model {name[:200]!r} makes no embeddings here. This server has {self.embedder_name!r} for them",
                "model_not_found",
                param="model",
            )

    def require_model(self, name: str) -> None:
        """Refuse a name that is not the model's.

        Raises:
            ApiError: there is no such model (404).
        """
        if name != self.model_name:
            is_embedder = name == self.embedder_name
            said = "only makes embeddings (/v1/embeddings)" if is_embedder else "does not exist"
            raise ApiError(
                404,
                f"The model {name[:200]!r} {said}. This server has {self.model_name!r}",
                "model_not_found",
                param="model",
            )
