"""One door to several replicas of an app (ASGI): it checks a request, and hands it to the replica of its document.

    client -> ingress (name, key, body) -> key of the document -> replica -> messages -> client

The ingress has no models. It knows a replica only as a function, so it does not depend on what runs the replicas.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapid_integrations.server.access import KEY_NAME, REQUEST_ID, Access
from rapid_integrations.server.app import guards
from rapid_integrations.server.disconnect import ClientGone, unless_disconnected
from rapid_integrations.server.document_key import SESSION_HEADER, document_key
from rapid_integrations.server.failures import RETRY_S, ApiError
from rapid_integrations.server.file_store import new_file_id
from rapid_integrations.server.merged_metrics import merged_metrics
from rapid_integrations.server.metrics import CONTENT_TYPE, Metrics
from rapid_integrations.server.routes.files import FILE_ID
from rapid_integrations.server.settings import ServerSettings

logger = logging.getLogger("rapid.server")

_UPLOADS = 8  # files that may arrive at once, because each is held in memory
_TRIES = 3  # replicas that may be lost before a request fails
_CHECKED = (b"authorization", b"origin")  # headers that have been checked here
_PASSED_ON = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "client")

Messages = AsyncGenerator[list[Message], None]


class ReplicaLost(Exception):
    """The replica ended before its answer did."""


class Replicas(Protocol):
    """What runs the replicas."""

    def ask(self, key: str | None, scope: dict[str, Any], body: bytes) -> Messages:
        """Return the messages of the replica of a key (`run_app`). Closing the iterator cancels the request.

        Raises:
            ReplicaLost: while the messages come.
            ApiError: no replica takes requests.
        """
        ...

    async def metrics(self) -> Mapping[str, bytes]:
        """Return what each replica's /metrics says, by the replica's name."""
        ...


class Ingress:
    """Passes requests on to replicas. If one is lost before it has answered anything, the next one is asked.

    Args:
        replicas: what runs them.
        metrics: of the ingress itself.
    """

    def __init__(self, replicas: Replicas, metrics: Metrics) -> None:
        self._replicas, self._metrics = replicas, metrics
        self._uploads = asyncio.Semaphore(_UPLOADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/health":
            await JSONResponse({"status": "ok"})(scope, receive, send)
        elif scope["path"] == "/metrics":
            pages = {"ingress": self._metrics.text(), **await self._replicas.metrics()}
            await Response(merged_metrics(pages), media_type=CONTENT_TYPE)(scope, receive, send)
        elif _is_upload(scope):
            async with self._uploads:
                await self._passed_on(scope, receive, send)
        else:
            await self._passed_on(scope, receive, send)

    async def _passed_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        passed = {name: scope[name] for name in (*_PASSED_ON, REQUEST_ID, KEY_NAME) if name in scope}
        passed["headers"] = [header for header in scope["headers"] if header[0] not in _CHECKED]
        if _is_upload(scope):
            key: str | None = new_file_id()  # so that the replica that reads the file is the one that is asked about it
            passed[FILE_ID] = key
        else:
            session = Headers(scope=scope).get(SESSION_HEADER)
            key = await asyncio.to_thread(document_key, scope["path"], session, body)
        try:
            await unless_disconnected(receive, self._answered(key, passed, body, send))
        except ClientGone:
            scope["rapid.cancelled"] = True

    async def _answered(self, key: str | None, scope: dict[str, Any], body: bytes, send: Send) -> None:
        for left in reversed(range(_TRIES)):
            relay = _Relay(send)
            try:
                await relay(self._replicas.ask(key, scope, body))
                return
            except ReplicaLost:
                logger.warning("a replica was lost in the middle of a request")
                if relay.begun:
                    await relay.break_off()
                    return
                if not left:
                    raise _lost() from None


class _Relay:
    """Sends what a replica answers on to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._events = False
        self.begun = False

    async def __call__(self, messages: Messages) -> None:
        held: Message | None = None  # the last one is sent after the replica has ended: clients may leave after it
        async with aclosing(messages):
            async for batch in messages:
                for message in batch:
                    if message["type"] == "http.response.start":
                        self.begun = True
                        kind = Headers(raw=list(message["headers"])).get("content-type", "")
                        self._events = kind.startswith("text/event-stream")
                    elif not message.get("more_body", False):
                        held = message
                        continue
                    await self._send(message)
        if held is not None:
            await self._send(held)

    async def break_off(self) -> None:
        """End an answer that cannot be completed: events say so, anything else stays incomplete."""
        if not self._events:
            raise _lost()
        event = f"data: {json.dumps(_lost().body)}\n\n".encode()
        await self._send({"type": "http.response.body", "body": event, "more_body": False})


def create_ingress(replicas: Replicas, settings: ServerSettings) -> ASGIApp:
    """Return the app of the door to several replicas.

    Args:
        replicas: what runs them. Their own apps have neither keys nor names (`settings_within`).
        settings: the keys, names and limits.

    Raises:
        ConfigurationError: the file of the keys cannot be used.
    """
    metrics = Metrics()
    app: ASGIApp = Ingress(replicas, metrics)
    for layer in reversed([Middleware(Access, metrics=metrics, routes={}), *guards(settings)]):
        app = layer.cls(app, *layer.args, **layer.kwargs)
    return app


def settings_within(settings: ServerSettings) -> ServerSettings:
    """Return the settings of a replica behind an ingress that has checked its requests."""
    return settings.model_copy(
        update={"api_keys": None, "allowed_hosts": ("*",), "allowed_origins": (), "shared_files": True}
    )


async def run_app(app: ASGIApp, scope: dict[str, Any], body: bytes) -> Messages:
    """Run an app for a request that has been received; yield its messages, those at hand together.

    If the iterator is closed, the app is told that its client has left.
    """
    happened: asyncio.Queue[Message | None] = asyncio.Queue()
    gone = asyncio.Event()
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        try:
            await app({**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive, _put)
        finally:
            happened.put_nowait(None)

    async def _put(message: Message) -> None:
        happened.put_nowait(message)

    working = asyncio.ensure_future(work())
    try:
        ended = False
        while not ended:
            batch = [await happened.get()]
            while not happened.empty():
                batch.append(happened.get_nowait())
            ended = batch[-1] is None
            if messages := [message for message in batch if message is not None]:
                yield messages
        await working
    finally:
        gone.set()
        await asyncio.wait([working])


def _is_upload(scope: Scope) -> bool:
    return bool(scope["method"] == "POST" and scope["path"] == "/v1/files")


def _lost() -> ApiError:
    return ApiError(503, "the replica ended before its answer did. Ask again", "replica_lost", retry_s=RETRY_S)
