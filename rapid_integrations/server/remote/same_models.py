"""Clients of a server notice that it was started anew with other models: tokens of one mean nothing to another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import PurePath
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import RemoteError
from rapid_integrations.server.remote.error_bodies import body_of
from rapid_integrations.server.remote.link import MODELS_HEADER
from rapid_integrations.server.remote.tokenizers_sent import digest_of

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

_CONFLICT = 409


class SameModels:
    """Refuses requests of clients that have been told of other models.

    Args:
        engine: the server's.
    """

    def __init__(self, engine: RapidEngine) -> None:
        self._engine = engine
        self._digests: tuple[str, str] | None = None

    async def digests(self) -> tuple[str, str]:
        """Return what identifies all of the engine's models to its clients, and its target as a drafter.

        Replicas with the same models have the same, wherever their files are.
        """
        if self._digests is None:
            self._digests = await in_thread(self._computed)
        return self._digests

    def __call__(self, handler: Handler) -> Handler:
        """Return a handler that answers other clients with an error. One that names no models is not looked at."""

        @wraps(handler)
        async def checked(request: Request) -> Response:
            expected = request.headers.get(MODELS_HEADER)
            if expected is not None and not self._engine.closed and expected not in await self.digests():
                return JSONResponse(body_of(self._changed()), _CONFLICT)
            return await handler(request)

        return checked

    def _computed(self) -> tuple[str, str]:
        engine = self._engine
        tokenizer = digest_of(engine.vocabulary)
        models = [
            None if model is None else [PurePath(model.name).name, model.vocab_size, model.num_parameters]
            for model in (engine.target, engine.drafter, engine.draft_lm)
        ]
        return _digest(["engine", tokenizer, *models]), _digest(["drafter", tokenizer, models[0]])

    def _changed(self) -> RemoteError:
        return RemoteError(
            f"the server has other models than when this connection was made: its target is {self._engine.target.name} "
            "now. Connect again",
            code="changed",
        )


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
