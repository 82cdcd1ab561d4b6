"""Vectors of texts for clients who search by themselves: the engine's own embedder, one slice of texts at a time."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from functools import partial

import numpy as np
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from rapid_integrations.compression import Embedder
from rapid_integrations.compression.default_compressor import DefaultCompressor
from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.server.disconnect import ClientGone, unless_disconnected
from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.requests import EmbeddingRequest
from rapid_integrations.server.state import ServerState

_SLICE = 16  # windows of text that are embedded before the next request has its turn


class Embedding:
    """A response with the vectors of texts. A client who leaves cancels the request.

    Args:
        state: the server's.
        compressor: has the embedder.
        slices: lets one slice be computed at a time, in the order in which they ask.
        body: the request.
    """

    def __init__(
        self, state: ServerState, compressor: DefaultCompressor, slices: asyncio.Semaphore, body: EmbeddingRequest
    ) -> None:
        self._state, self._compressor, self._slices, self._body = state, compressor, slices, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request (ASGI)."""
        try:
            response = await unless_disconnected(receive, self._response())
        except ClientGone:
            self._state.metrics.cancelled()
            scope["rapid.cancelled"] = True
            return
        await response(scope, receive, send)

    async def _response(self) -> Response:
        body, state = self._body, self._state
        texts = body.texts
        async with state.embedding_turn():
            embedder = await in_thread(self._compressor.embedder)
            vectors = await self._vectors(embedder, texts)
        if body.dimensions not in (None, vectors.shape[1]):
            raise ApiError(
                400,
                f"{self._compressor.embedder_name} makes vectors of {vectors.shape[1]} numbers, and dimensions is "
                f"{body.dimensions}: leave it out",
                "invalid_value",
                param="dimensions",
            )
        tokens = await in_thread(lambda: sum(len(state.engine.vocabulary.encode(text)) for text in texts))
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": self._compressor.embedder_name, "data": data, "usage": usage})

    async def _vectors(self, embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors (n, dimension). A text of several windows has the mean direction of their vectors."""
        split = await in_thread(lambda: [embedder.split(text) for text in texts])
        windows = [window for of_text in split for window in of_text]
        parts = []
        for begin in range(0, len(windows), _SLICE):
            part = windows[begin : begin + _SLICE]
            async with self._slices:
                parts.append(await in_thread(partial(embedder.embed, part)))
        rows = np.concatenate(parts)  # (windows, dimension)
        starts = np.cumsum([0, *(len(of_text) for of_text in split[:-1])])
        sums = np.add.reduceat(rows, starts, axis=0)  # (n, dimension)
        several = np.array([len(of_text) > 1 for of_text in split])
        sums[several] /= np.maximum(np.linalg.norm(sums[several], axis=1, keepdims=True), 1e-12)
        return sums


def _written(vector: np.ndarray, encoding: str | None) -> str | list[float]:
    """Return a vector as numbers, or as the base64 of little-endian float32, which OpenAI's own client asks for."""
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return [float(value) for value in vector]
