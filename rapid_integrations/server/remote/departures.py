"""What a server does for a client that has gone: nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from rapid_integrations.errors import RemoteError

T = TypeVar("T")


async def gone(request: Request) -> None:
    """Wait until the client has gone. The body has to be read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def unless_gone(work: Coroutine[Any, Any, T], request: Request) -> T:
    """Return the result of `work`, which is cancelled if the client goes before.

    Raises:
        RemoteError: it has gone, and nobody will see this.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(request))
    both: list[asyncio.Future[Any]] = [working, leaving]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RemoteError("the client has gone", code="failed")
        return await working
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(*both, return_exceptions=True)
