"""Who may ask (ASGI): by the name that the client calls the server, by the page that it runs on, and by its key."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.server.access import KEY_NAME
from rapid_integrations.server.failures import RETRY_S, ApiError
from rapid_integrations.server.keys import KeyFile
from rapid_integrations.server.settings import ServerSettings

logger = logging.getLogger("rapid.server")

PROBES = ("/health", "/ready")
OPEN = ("/", *PROBES)  # paths that need no key: the page asks for the key itself
PAGE = "/page/"  # its files


class Guard:
    """Refuses clients by the name that they call the server, and by the page that they run on.

    - A name of the server that nobody allowed: a web page could have its own name lead to this machine (DNS
      rebinding), and its browser would then take the server for that page's.
    - A page of another origin: forms and images can be sent to a server on this machine by any page.

    Args:
        app: gets the requests of all others.
        settings: the allowed names and origins.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if its client may ask."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if scope["path"] not in PROBES:  # a load balancer calls the server by its address
                self._require_name(headers)
            self._require_origin(headers)
        await self._app(scope, receive, send)

    def _require_name(self, headers: Headers) -> None:
        allowed = self._settings.allowed_hosts
        name = _host_name(headers.get("host", ""))
        if "*" not in allowed and name not in allowed:
            raise ApiError(
                421,
                f"this server is not called {name[:100]!r}: start it with --allowed-host and that name",
                "host_not_allowed",
            )

    def _require_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._settings.allowed_origins:
            return
        try:
            same = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        except ValueError:
            same = False
        if not same:
            raise ApiError(
                403,
                "pages of other origins may not call this server: start it with --allowed-origin and the origin",
                "origin_not_allowed",
            )


class KeyGuard:
    """Refuses clients without a key.

    Args:
        app: gets the requests of all others.
        keys: the keys.
    """

    def __init__(self, app: ASGIApp, keys: KeyFile) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if it has a key or needs none."""
        if scope["type"] == "http" and scope["path"] not in OPEN and not scope["path"].startswith(PAGE):
            scope[KEY_NAME] = self._name(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _name(self, headers: Headers) -> str:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        try:
            name = self._keys.owner(key.strip()) if scheme.lower() == "bearer" and key.strip() else None
        except ConfigurationError as error:  # the file was damaged since the start: not the client's fault
            logger.error("no request can be answered: %s", error)
            raise ApiError(
                503, "the server cannot read its API keys; its log says why. Ask again later", "keys", retry_s=RETRY_S
            ) from None
        if name is None:
            said = "no API key was given" if not key.strip() else "the API key is wrong"
            raise ApiError(401, f"{said}: send it as Authorization: Bearer KEY", "invalid_api_key")
        return name


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
