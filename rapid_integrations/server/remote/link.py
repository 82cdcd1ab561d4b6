"""A connection to a server: an event loop in a thread of its own, in which all of a client's HTTP requests run."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from rapid_integrations.errors import (
    ConfigurationError,
    EngineClosedError,
    ForkedProcessError,
    MissingExtraError,
    RapidError,
    RemoteError,
    SharedResource,
)
from rapid_integrations.server.document_key import SESSION_HEADER
from rapid_integrations.server.remote.error_bodies import error_from

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_AT_ONCE = 256  # connections; each stream holds one
CONNECT_S = 10.0
MODELS_HEADER = "X-Rapid-Models"
"""Names the models that a client was told of; see `same_models.py`."""


class Link(SharedResource):
    """A client of one server. Threads may share it.

    The thread starts with the first request and ends with `close`.

    Args:
        url: where the server's paths begin, as in "http://127.0.0.1:8080".
        api_key: sent as a bearer token; None sends none.
        timeout: seconds that the server may take from one piece of an answer to the next; None sets no limit.

    Raises:
        ConfigurationError, MissingExtraError: see `require_address`.

    Attributes:
        url: without a slash at the end.
        timeout: see above.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float | None = None) -> None:
        import httpx

        require_address(url, timeout)
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._process = os.getpid()
        self._closed = False
        # A router in front of several replicas keeps this client's texts on one of them.
        headers = {SESSION_HEADER: secrets.token_hex(16)}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=16)
        times = httpx.Timeout(timeout, connect=min(CONNECT_S, timeout or CONNECT_S), pool=None)
        self._client = httpx.AsyncClient(headers=headers, timeout=times, limits=limits)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._abandoned = weakref.finalize(self, _end, os.getpid(), self._loop, self._client)
        self._abandoned.atexit = False

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closed

    @property
    def is_here(self) -> bool:
        """Whether this is the loop's own thread, in which nobody may wait for it."""
        return self._thread is threading.current_thread()

    def expect(self, models: object) -> None:
        """Have the server refuse later requests if it has other models than those that it has told of.

        Args:
            models: what its description calls "digest"; None of a server of an earlier version, which does not look.
        """
        if isinstance(models, str):
            self._client.headers[MODELS_HEADER] = models

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the loop, and return its result as a future; cancelling that cancels the coroutine.

        Raises:
            EngineClosedError: the link is closed.
            ForkedProcessError: this process was forked from the one that made it.
        """
        try:
            self._require_open()
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=_run, args=(self._loop,), name="rapid remote", daemon=True)
                    self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise

    def soon(self, call: Any) -> None:
        """Call something in the loop; nothing happens after `close`."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed
            return

    async def exchange(
        self, path: str, *, content: bytes | None = None, json: Any = None, timeout: float | None = None
    ) -> bytes:
        """Make one HTTP request in the loop, and return the body of the answer: POST if there is a body, else GET.

        Args:
            path: behind the URL.
            content, json: the body.
            timeout: seconds in place of the link's.

        Raises:
            RapidError: see `error_from`; RemoteError if no answer came.
        """
        method = "GET" if content is None and json is None else "POST"
        more: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        with self._taught(path, timeout):
            answer = await self._client.request(method, self.url + path, content=content, json=json, **more)
        if answer.status_code >= 400:
            raise error_from(_json_of(answer.content), answer.status_code, self.url + path)
        return answer.content

    @asynccontextmanager
    async def streaming(self, path: str, content: bytes) -> AsyncIterator[httpx.Response]:
        """Post a request in the loop whose answer comes piece by piece.

        Raises:
            RapidError: as for `exchange`, also while the answer is read.
        """
        with self._taught(path):
            async with self._client.stream("POST", self.url + path, content=content) as answer:
                if answer.status_code >= 400:
                    raise error_from(_json_of(await answer.aread()), answer.status_code, self.url + path)
                yield answer

    def close(self) -> None:
        """End all requests and the thread; safe to call again. In a forked child, nothing happens."""
        if self._closed or self._process != os.getpid():
            return
        self._closed = True
        if self._thread is None:
            self._loop.close()
        else:
            asyncio.run_coroutine_threadsafe(_wind_up(self._loop, self._client), self._loop)
            if self._thread is not threading.current_thread():
                self._thread.join()
        self._abandoned.detach()

    def _require_open(self) -> None:
        if self._process != os.getpid():
            raise ForkedProcessError(
                f"this connection to {self.url} was opened in process {self._process}, and process {os.getpid()} was "
                "forked from it: threads do not survive a fork. Connect in each process after the fork"
            )
        if self._closed:
            raise EngineClosedError(f"the connection to {self.url}")

    def _taught(self, path: str, timeout: float | None = None) -> _Teaching:
        return _Teaching(self.url + path, timeout or self.timeout)


class _Teaching:
    """Turns the errors of httpx into this package's."""

    def __init__(self, url: str, timeout: float | None) -> None:
        self._url, self._timeout = url, timeout

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import httpx

        if error is None or isinstance(error, RapidError) or not isinstance(error, (httpx.HTTPError, httpx.InvalidURL)):
            return
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
            raise RemoteError(
                f"{self._url} cannot be reached ({error or type(error).__name__}): is the server running, and is the "
                "URL right?",
                code="unreachable",
            ) from error
        if isinstance(error, httpx.TimeoutException):
            raise RemoteError(
                f"{self._url} did not answer within {self._timeout:g} s: the server may be busy. Give it longer "
                "(timeout=...), or ask later",
                code="timeout",
            ) from error
        raise RemoteError(
            f"{self._url} broke off ({error or type(error).__name__}): the server may have ended", code="unreachable"
        ) from error


def require_address(url: object, timeout: float | None) -> None:
    """Refuse what no link can be made of.

    Raises:
        ConfigurationError: the URL is none, or the time limit is not above 0.
        MissingExtraError: httpx is not installed.
    """
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"{url!r:.200} is not the URL of a server: give http://host:port or https://...")
    if timeout is not None and not timeout > 0.0:
        raise ConfigurationError(f"timeout={timeout!r} must be above 0 seconds, or None for no limit")
    try:
        import_module("httpx")
    except ImportError:
        raise MissingExtraError(feature="An engine or a drafter on another machine", extra="remote") from None


def _json_of(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _wind_up(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    """End everything that runs in the loop, close the connections, and stop it."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await client.aclose()
    await asyncio.sleep(0)  # the transports let go of their sockets in the loop's next turn
    loop.call_soon(loop.stop)


def _end(process: int, loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    """Do what `Link.close` does for one that nobody has closed, without waiting."""
    if process == os.getpid() and not loop.is_closed():
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(_wind_up(loop, client), loop)
        else:
            loop.close()
