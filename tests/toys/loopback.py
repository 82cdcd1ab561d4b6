"""A real HTTP server on the loopback address, in a thread of this process."""

import contextlib
import threading
import time

import pytest


@contextlib.contextmanager
def served(routes, middleware=()):
    """Serve Starlette routes by uvicorn; yields the URL. Both packages come with the extra `server`."""
    pytest.importorskip("starlette")
    uvicorn = pytest.importorskip("uvicorn")
    from starlette.applications import Starlette

    app = Starlette(routes=list(routes), middleware=list(middleware))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="uvicorn", daemon=True)
    thread.start()
    end = time.monotonic() + 60.0
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end, "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
