"""Calls of several requests that go in one HTTP request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from rapid_integrations.errors import RapidError, RemoteError

K = TypeVar("K", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")

LINGER_S = 0.001
"""How long a call waits for those of other requests, if there are any: the worker resumes them one after another."""


class Batches(Generic[K, Item, Result]):
    """Gathers calls and sends those of one kind together. All methods run in one event loop.

    Args:
        send: makes the HTTP request for items of one kind, and returns a result for each, or an error in its place.
        lonely: whether no other request could have a call now.
    """

    def __init__(
        self, send: Callable[[K, list[Item]], Awaitable[list[Result | RapidError]]], lonely: Callable[[], bool]
    ) -> None:
        self._send, self._lonely = send, lonely
        self._waiting: dict[K, list[tuple[Item, asyncio.Future[Result]]]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, kind: K, *items: Item) -> list[Result]:
        """Send items with what else is waiting, and return their results.

        Raises:
            RapidError: what `send` raised, or returned in place of a result.
        """
        waiting = self._waiting.setdefault(kind, [])
        if not waiting:
            task = asyncio.ensure_future(self._send_all(kind))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        mine = [(item, asyncio.get_running_loop().create_future()) for item in items]
        waiting += mine
        answers = await asyncio.gather(*(future for _, future in mine), return_exceptions=True)
        results = []
        for each in answers:
            if isinstance(each, BaseException):
                raise each
            results.append(each)
        return results

    async def _send_all(self, kind: K) -> None:
        if not self._lonely():
            await asyncio.sleep(LINGER_S)
        batch = self._waiting.pop(kind)
        found: list[Result | RapidError]
        try:
            found = await self._send(kind, [item for item, _ in batch])
        except RapidError as error:
            found = [error] * len(batch)
        except Exception as error:  # an answer that nobody foresaw
            found = [RemoteError(f"an answer cannot be read: {type(error).__name__} {error}", code="answer")] * len(
                batch
            )
        for (_, future), result in zip(batch, found, strict=True):
            if future.done():  # nobody waits any more
                continue
            if isinstance(result, RapidError):
                future.set_exception(result)
            else:
                future.set_result(result)
