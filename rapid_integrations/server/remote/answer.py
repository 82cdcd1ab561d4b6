"""A running answer of a remote engine, as `CompletionStream` takes a request of this process."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rapid_integrations.engine.outbox import Ended, Outbox, Progress
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.errors import EngineClosedError, RapidError, RemoteError
from rapid_integrations.outputs import CompletionChunk, Trace
from rapid_integrations.progress import OnProgress
from rapid_integrations.server.remote.error_bodies import error_from
from rapid_integrations.server.remote.link import Link
from rapid_integrations.server.remote.requests_sent import prepared_received

if TYPE_CHECKING:
    import httpx

_PATH = "/rapid/v1/complete"


class RemoteAnswer:
    """One request at a server. It is sent at once, and runs some pieces ahead of its reader.

    Args:
        link: to the server.
        body: the request.

    Attributes:
        outbox: what the caller gets once the prompts are prepared.
    """

    def __init__(self, link: Link, body: bytes) -> None:
        self._link = link
        self._room = asyncio.Event()
        self.outbox = Outbox(lambda: link.soon(self._room.set))
        self._beginning: queue.SimpleQueue[Progress | PreparedPrompt | Ended] = queue.SimpleQueue()
        self._trace: Trace | None = None
        self._begun = self._complete = False
        self._future = link.start(self._run(body))

    def prepared(self, report: OnProgress) -> PreparedPrompt:
        """Wait until the prompts are prepared, and return them; reports the progress of that.

        Raises:
            RapidError: the server refuses the request, or is lost.
        """
        try:
            while True:
                event = self._beginning.get()
                if isinstance(event, PreparedPrompt):
                    return event
                if isinstance(event, Ended):
                    raise event.error or EngineClosedError()
                report(event.stage, event.done, event.total)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Break off the HTTP request: the server then ends this one within a pass. Safe in any thread."""
        self._future.cancel()

    def end(self, error: BaseException | None = None) -> None:
        """Break off, and tell the caller."""
        self.cancel()
        self.outbox.put(Ended(error))

    def submit(self, job: object) -> None:
        """Do nothing: the request has been sent."""

    def trace(self) -> Trace:
        """Return the record, which comes with the last piece; it is empty before."""
        return self._trace or Trace(question="", contexts=(), settings={}, rounds=())

    async def _run(self, body: bytes) -> None:
        error: BaseException | None = None
        try:
            async with self._link.streaming(_PATH, body) as answer:
                async for name, data in _events(answer):
                    await self._take(name, data)
            if not self._complete:
                raise RemoteError(
                    f"{self._link.url} ended an answer before its end: the server may have been stopped", code="failed"
                )
        except asyncio.CancelledError:
            error = EngineClosedError() if self._link.closed else None
            raise
        except RapidError as refused:
            error = refused
        except (KeyError, TypeError, ValueError, ValidationError) as damaged:
            error = RemoteError(f"{self._link.url} sent an answer that cannot be read: {damaged!r}", code="answer")
        finally:
            self._beginning.put(Ended(error))
            self.outbox.put(Ended(error))

    async def _take(self, name: str, data: Any) -> None:
        if name == "error":
            raise error_from(data, int(data.get("status", 500)), self._link.url + _PATH)
        if name == "prepared":
            self._begun = True
            self._beginning.put(prepared_received(data, self._link.url))
        elif name == "progress":
            progress = Progress(data["stage"], data["done"], data["total"])
            if self._begun:
                self.outbox.put(progress)
            else:
                self._beginning.put(progress)
        elif name == "trace":
            self._trace = Trace.model_validate(data)
        elif name == "piece":
            piece = CompletionChunk.model_validate(data)
            self._complete = piece.finish_reason is not None
            self.outbox.put(piece)
            self._room.clear()
            while self.outbox.full:  # then nothing is read, and the server pauses
                await self._room.wait()
                self._room.clear()


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """Yield the name and the data of each server-sent event. Our server writes each in two lines."""
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
