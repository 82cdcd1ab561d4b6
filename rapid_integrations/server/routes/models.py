"""/v1/models: the model that answers, and the one that makes embeddings. /openapi.json describes the endpoints."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.server.openapi import document
from rapid_integrations.server.state import ServerState


def routes(state: ServerState) -> list[Route]:
    """Return the routes of the models."""
    engine = state.engine

    def embedder(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": state.started_at,
            "owned_by": "rapid-integrations",
            "rapid": {"chat": False, "embeddings": True},
        }

    def model() -> dict[str, Any]:
        """Return the model that answers. Whether it calls tools takes seconds to find out for the first time."""
        return {
            "id": state.model_name,
            "object": "model",
            "created": state.started_at,
            "owned_by": "rapid-integrations",
            "rapid": {
                "context_window": engine.target.context_window,
                "drafter": None if engine.self_speculation else engine.drafter.name,
                "tools": engine.supports_tools,
                "chat": engine.vocabulary.chat_template is not None,
                "law": engine.speculation.law,
            },
        }

    async def listed(_: Request) -> Response:
        name = state.embedder_name
        more = [] if name is None else [embedder(name)]
        first = await in_thread(model)  # clients take the first one for their chats
        return JSONResponse({"object": "list", "data": [first, *more]})

    async def one(request: Request) -> Response:
        name = request.path_params["model"]
        if name == state.embedder_name != state.model_name:
            return JSONResponse(embedder(name))
        state.require_model(name)
        return JSONResponse(await in_thread(model))

    described = document()

    async def description(_: Request) -> Response:
        return JSONResponse(described)

    return [
        Route("/v1/models", listed, methods=["GET"]),
        Route("/v1/models/{model:path}", one, methods=["GET"]),  # a name may hold slashes, as those of a hub do
        Route("/openapi.json", description, methods=["GET"]),
    ]
