"""Limits of request bodies: their size, and the time within which they have to arrive (ASGI)."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.settings import ServerSettings

_FORM_BYTES = 64 * 1024  # of a form around its file


class BodyLimits:
    """Refuses bodies that are too large or too slow.

    Args:
        app: gets the requests.
        settings: the limits.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with a body that is measured as it arrives."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings = self._settings
        upload = scope["path"] == "/v1/files"
        most = settings.max_file_bytes + _FORM_BYTES if upload else settings.max_body_bytes
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:18]) > most:
            raise _too_large(most)
        until = asyncio.get_running_loop().time() + settings.body_timeout_s
        arrived, complete = 0, False

        async def measured() -> Message:
            nonlocal arrived, complete
            if complete:  # it now waits for the client to leave, however long the answer takes
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise ApiError(
                    408,
                    f"the body did not arrive within {settings.body_timeout_s:g} s: send it faster",
                    "body_timeout",
                ) from None
            if message["type"] == "http.request":
                arrived += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if arrived > most:
                    raise _too_large(most)
            return message

        await self._app(scope, measured, send)


def _too_large(most: int) -> ApiError:
    return ApiError(
        413, f"the body is larger than {most:,} bytes: send less, or upload documents to /v1/files", "body_too_large"
    )
