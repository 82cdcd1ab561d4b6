"""The outermost layer (ASGI): it logs and counts every request, and answers those that fail."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapid_integrations.server.failures import api_error
from rapid_integrations.server.log import log_failure
from rapid_integrations.server.metrics import Metrics

logger = logging.getLogger("rapid.server")
access_logger = logging.getLogger("rapid.server.access")

REQUEST_ID, KEY_NAME = "rapid.request_id", "rapid.key"
"""Keys in the scope of a request: its id, and the name of the client's key."""

_LEFT = 499  # the status that logs give a request whose client left

_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'self'"),
]


class Failures:
    """Answers requests that fail within the layers below, unless their answer has begun.

    Args:
        app: gets the requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and say what failed."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            raise
        except Exception as error:
            if scope["type"] != "http":
                raise
            failure = api_error(error)
            if failure.status == 500:
                log_failure(logger, error)
            if not begun:
                await failure.response()(scope, receive, send)


class Access:
    """Writes one line for each request: id, key, method, route, status and time. It holds no path, query or text.

    A request that came through an `ingress` keeps the id that it got there.

    Args:
        app: gets the requests.
        metrics: counts them.
        routes: the pattern of each endpoint's path, by endpoint.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Mapping[Any, str]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = scope.setdefault(REQUEST_ID, secrets.token_hex(8))
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message.get("headers", ())}
                wanted = [*_SECURITY_HEADERS, (b"x-request-id", request_id.encode())]
                more = [header for header in wanted if header[0] not in present]
                headers = [*message.get("headers", ()), *more]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await Failures(self._app)(scope, receive, counted)
        except ClientDisconnect:
            scope["rapid.cancelled"] = True
        finally:
            if scope.get("rapid.cancelled"):
                status = _LEFT
            route = self._routes.get(scope.get("endpoint"), "other")
            seconds = time.perf_counter() - start
            self._metrics.request(route, status, seconds)
            access_logger.info(
                "%s %s %s %s %d %.0f ms",
                request_id,
                scope.get(KEY_NAME, "-"),
                scope["method"][:10],
                route,
                status,
                1000 * seconds,
            )
