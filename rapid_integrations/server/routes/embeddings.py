"""/v1/embeddings."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from rapid_integrations.compression.default_compressor import DefaultCompressor
from rapid_integrations.server.body import parsed
from rapid_integrations.server.embedding import Embedding
from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.requests import EmbeddingRequest
from rapid_integrations.server.state import ServerState


def routes(state: ServerState) -> list[Route]:
    """Return the route of the vectors."""
    slices = asyncio.Semaphore(1)

    async def embed(request: Request) -> Any:
        body = await parsed(request, EmbeddingRequest)
        compressor = state.engine.compressor
        if not isinstance(compressor, DefaultCompressor):
            raise ApiError(501, "this server searches without an embedding model of its own", "no_embedder")
        state.require_embedder(body.model)
        return Embedding(state, compressor, slices, body)

    return [Route("/v1/embeddings", embed, methods=["POST"])]
