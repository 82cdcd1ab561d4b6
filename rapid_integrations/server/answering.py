"""An answer on its way to a client: whole, or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from rapid_integrations.server.answer_format import AnswerFormat
from rapid_integrations.server.choices import Ask, Choices, Event, Piece
from rapid_integrations.server.disconnect import ClientGone, unless_disconnected
from rapid_integrations.server.failures import ApiError, api_error
from rapid_integrations.server.log import log_failure
from rapid_integrations.server.state import ServerState

logger = logging.getLogger("rapid.server")

_EVENT_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Answering:
    """A response that asks the engine and writes what it answers. A client who leaves cancels the request.

    Args:
        state: the server's.
        asks: prepares what the engine is asked.
        written: returns the format of the running answers.
        streamed: whether the answer is sent as events.
    """

    def __init__(
        self,
        state: ServerState,
        asks: Callable[[], Awaitable[Sequence[Ask]]],
        written: Callable[[Choices], AnswerFormat],
        streamed: bool,
    ) -> None:
        self._state, self._asks, self._written, self._streamed = state, asks, written, streamed
        self._begun = False  # whether the headers of the events are sent
        self._sending = asyncio.Lock()
        self._said_at = 0.0  # when something was last sent, by the event loop's clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request (ASGI)."""
        try:
            await unless_disconnected(receive, self._answer(scope, receive, send))
        except ClientGone:
            self._state.metrics.cancelled()
            scope["rapid.cancelled"] = True

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The end is sent after everything has been given back: then, a client who leaves is no client who left early.
        self._said_at = asyncio.get_running_loop().time()
        keeping = asyncio.ensure_future(self._keep_open(send))
        try:
            end = await self._worked(send)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failure = api_error(error)
            if failure.status == 500:
                log_failure(logger, error)
            end = _event(failure.body) if self._begun else failure.response()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        if isinstance(end, Response):
            await end(scope, receive, send)
        else:
            await send({"type": "http.response.body", "body": end, "more_body": False})

    async def _worked(self, send: Send) -> Response | bytes:
        """Have the engine answer; return the response, or the last events of one that has begun."""
        state = self._state
        async with state.turn():
            asks = await self._asks()
            if len(asks) > state.settings.max_choices:
                raise ApiError(
                    400,
                    f"the request asks for {len(asks)} answers, and the server gives {state.settings.max_choices}",
                    "too_many_choices",
                    param="n",
                )
            async with Choices.open(state.engine, asks) as choices:
                return await self._streamed_end(choices, send) if self._streamed else await self._whole(choices)

    async def _whole(self, choices: Choices) -> Response:
        pieces: list[Piece] = []
        async for event in choices:
            if isinstance(event, Piece):
                pieces.append(event)
                self._count(event)
        return JSONResponse(self._written(choices).whole(pieces))

    async def _streamed_end(self, choices: Choices, send: Send) -> bytes:
        """Send the events of the answer; return the last ones."""
        form = self._written(choices)
        await self._send(send, *map(_event, form.opening()))
        async for event in choices:
            await self._send(send, *map(_event, form.events(event)))
            self._count(event)
        return b"".join(map(_event, form.closing())) + b"data: [DONE]\n\n"

    async def _keep_open(self, send: Send) -> None:
        """Fill a long silence of a stream with comments, also while the request waits: proxies close silent ones.

        A failure after the first comment can only be told in the stream.
        """
        interval, loop = self._state.settings.comment_s, asyncio.get_running_loop()
        while self._streamed:
            if (left := self._said_at + interval - loop.time()) > 0:
                await asyncio.sleep(left)
            else:
                await self._send(send, b": waiting\n\n")

    async def _send(self, send: Send, *events: bytes) -> None:
        self._said_at = asyncio.get_running_loop().time()
        async with self._sending:
            if not self._begun:
                await send({"type": "http.response.start", "status": 200, "headers": _EVENT_HEADERS})
                self._begun = True
            for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})

    def _count(self, event: Event) -> None:
        if isinstance(event, Piece) and event.chunk.finish_reason is not None:
            self._state.metrics.answer(event.chunk)


def _event(message: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(message, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
