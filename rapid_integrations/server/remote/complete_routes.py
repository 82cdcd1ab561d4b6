"""The routes of the remote engine: everything that `RapidEngine` does, for `RapidEngine.connect` elsewhere.

- `POST /rapid/v1/complete` answers a request. With `"stream": true`, the answer is server-sent events: "progress",
  "prepared" (both prompts), "piece" (`CompletionChunk`), "trace", "error". The last piece has a finish reason. Without
  it, the answer is one object.
- `POST /rapid/v1/explain` returns the prompts of both models.
- `POST /rapid/v1/read` reads ahead what the prompts of two questions begin with.
- `GET /rapid/v1/engine` describes the engine, `/state` counts its requests, `/fingerprints` identifies its models.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.engine.read_ahead import QUESTIONS
from rapid_integrations.outputs import Completion, CompletionChunk
from rapid_integrations.prompt import PromptLike
from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.remote.departures import gone, unless_gone
from rapid_integrations.server.remote.error_bodies import body_of, status_of
from rapid_integrations.server.remote.requests_sent import Asking, as_bytes, prepared_sent, reading_received, received
from rapid_integrations.server.remote.same_models import SameModels

HEARTBEAT_S = 15.0
"""After so long without an event a comment is sent, so that neither client nor proxy takes the server for dead."""

Event = tuple[str, Any]
Turn = Callable[[], AbstractAsyncContextManager[None]]


def complete_routes(engine: RapidEngine, turn: Turn = nullcontext) -> list[Route]:
    """Return the routes for an engine; see `routes.routes`."""
    same = SameModels(engine)

    async def complete(request: Request) -> Response:
        try:
            asking = received(await request.body())
        except Exception as error:
            return _json(body_of(error), status_of(error))
        events = _events(engine, asking, request, turn)
        if asking.stream and asking.progress:  # progress comes before it is known whether the request is in order
            return StreamingResponse(_as_text(events), media_type="text/event-stream")
        first = await anext(events, ("error", _gone()))
        if first[0] == "error":
            return _json(first[1], first[1]["status"], first[1].get("retry_s"))
        if asking.stream:
            return StreamingResponse(_as_text(events, first), media_type="text/event-stream")
        return await _whole(first, events)

    async def explain(request: Request) -> Response:
        try:
            asking = received(await request.body())
            for name in ("sampling", "speculation", "trace"):
                asking.options.pop(name, None)
            explaining = in_thread(lambda: engine.explain(asking.prompt, **asking.options))
            prepared = await unless_gone(explaining, request)
        except Exception as error:
            return _json(body_of(error), status_of(error))
        return _json(prepared_sent(prepared))

    async def read(request: Request) -> Response:
        try:
            first, second, options = reading_received(await request.body())

            def prompt(texts: Sequence[str], question: str) -> PromptLike:
                return first if question == QUESTIONS[0] else second

            found = await unless_gone(engine.aread([], prompt=prompt, **options), request)
        except Exception as error:
            return _json(body_of(error), status_of(error))
        return _json(found.model_dump(mode="json"))

    async def describe(request: Request) -> Response:
        models, _ = await same.digests()
        return _json({**await in_thread(lambda: described(engine)), "digest": models})

    async def state(request: Request) -> Response:
        counts = {"running": engine.running_requests, "waiting": engine.waiting_requests}
        return _json({**counts, "kv_bytes": engine.kv_bytes})

    async def fingerprints(request: Request) -> Response:
        try:
            return _json(await in_thread(engine.fingerprints))
        except Exception as error:
            return _json(body_of(error), status_of(error))

    return [
        Route("/rapid/v1/complete", same(complete), methods=["POST"]),
        Route("/rapid/v1/explain", same(explain), methods=["POST"]),
        Route("/rapid/v1/read", same(read), methods=["POST"]),
        Route("/rapid/v1/engine", describe, methods=["GET"]),
        Route("/rapid/v1/state", state, methods=["GET"]),
        Route("/rapid/v1/fingerprints", fingerprints, methods=["GET"]),
    ]


def described(engine: RapidEngine) -> dict[str, Any]:
    """Return what a client has to know of an engine, as JSON: its models, its default settings and what it can do."""
    models = {"target": engine.target, "drafter": engine.drafter, "draft_lm": engine.draft_lm}
    numbers = ("context_window", "vocab_size", "num_parameters", "weight_bytes", "kv_bytes_per_token")
    return {
        "models": {
            role: {"name": model.name, **{name: getattr(model, name) for name in numbers}}
            for role, model in models.items()
            if model is not None and (role == "target" or model is not engine.target)
        },
        "sampling": engine.sampling.model_dump(mode="json"),
        "speculation": engine.speculation.model_dump(mode="json"),
        "compression": engine.compression.model_dump(mode="json"),
        "chat_template_kwargs": engine.chat_template_kwargs.as_dict(),
        "supports_tools": engine.supports_tools,
        "reuses_prefixes": engine.reuses_prefixes,
    }


async def _events(engine: RapidEngine, asking: Asking, request: Request, turn: Turn) -> AsyncIterator[Event]:
    """Yield what happens to a request, and None after `HEARTBEAT_S` of nothing. Ends it if the client goes."""
    happened: asyncio.Queue[Event | None] = asyncio.Queue()
    loop, here = asyncio.get_running_loop(), threading.get_ident()

    def report(stage: str, done: int, total: int) -> None:
        event = "progress", {"stage": stage, "done": done, "total": total}
        if threading.get_ident() == here:
            happened.put_nowait(event)
        else:
            loop.call_soon_threadsafe(happened.put_nowait, event)

    async def answer() -> None:
        try:
            options = {**asking.options, **({"on_progress": report} if asking.progress else {})}
            async with turn(), await engine.astream(asking.prompt, **options) as stream:
                happened.put_nowait(("prepared", prepared_sent(stream.prepared)))
                async for piece in stream:
                    if piece.finish_reason is not None and (trace := stream.trace) is not None:
                        happened.put_nowait(("trace", trace.model_dump(mode="json")))
                    happened.put_nowait(("piece", piece.model_dump(mode="json")))
                    await happened.join()  # the client has taken it: a slow one makes the engine pause
        except Exception as error:
            happened.put_nowait(("error", _told(error)))
        happened.put_nowait(None)

    answering = asyncio.ensure_future(answer())
    leaving = asyncio.ensure_future(gone(request))
    waiting: asyncio.Future[Event | None] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(happened.get())
            both: list[asyncio.Future[Any]] = [waiting, leaving]
            await asyncio.wait(both, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                return
            if not waiting.done():
                yield "", None
                continue
            event, waiting = waiting.result(), None
            if event is None:
                return
            yield event
            happened.task_done()
    finally:
        leaving.cancel()
        answering.cancel()
        if waiting is not None:
            waiting.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _as_text(events: AsyncIterator[Event], *first: Event) -> AsyncIterator[bytes]:
    for event in first:
        yield _text(event)
    async for event in events:
        yield _text(event)


def _text(event: Event) -> bytes:
    name, data = event
    return b"".join((b"event: ", name.encode(), b"\ndata: ", as_bytes(data), b"\n\n")) if name else b": waiting\n\n"


async def _whole(first: Event, events: AsyncIterator[Event]) -> Response:
    """Return the answer as one object."""
    found: dict[str, Any] = dict([first])
    pieces: list[CompletionChunk] = []
    async for name, data in events:
        if name == "error":
            return _json(data, data["status"])
        if name == "piece":
            pieces.append(CompletionChunk.model_validate(data))
        found[name] = data
    if not pieces or pieces[-1].finish_reason is None:
        return _json(_gone(), 499)
    completion = Completion.join(pieces).model_dump(mode="json")
    return _json({"completion": completion, "prepared": found.get("prepared"), "trace": found.get("trace")})


def _told(error: Exception) -> dict[str, Any]:
    """Return what a client is told of an error. Those of `turn` have their own form."""
    if isinstance(error, ApiError):
        return {**error.body, "status": error.status, "retry_s": error.retry_s}
    return {**body_of(error), "status": status_of(error)}


def _gone() -> dict[str, Any]:
    return {"error": {"message": "the client has gone", "type": "server_error", "code": "gone"}, "status": 499}


def _json(value: object, status: int = 200, retry_s: int | None = None) -> Response:
    headers = {} if retry_s is None else {"Retry-After": str(retry_s)}
    return Response(as_bytes(value), status, headers, media_type="application/json")
