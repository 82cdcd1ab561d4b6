"""What the endpoints of one server share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
        deadlines: when running answers have to end.
        metrics: what is counted.
        started_at: Unix time in seconds.
    """

    engine: RapidEngine
    settings: ServerSettings
    files: FileStore
    reading: BackgroundReading
    turns: Turns
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

    def require_model(self, name: str) -> None:
        """Refuse a name that is not the model's.

        Raises:
            ApiError: there is no such model (404).
        """
        if name != self.model_name:
            raise ApiError(
                404,
                f"The model {name[:200]!r} does not exist. This server has {self.model_name!r}",
                "model_not_found",
                param="model",
            )
