"""An engine in this process, and the same one over a real HTTP server on the loopback address."""

import pytest

from rapid_integrations import CompressionConfig, Prompt, SamplingParams
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine
from tests.toys.loopback import served
from tests.toys.models import words

SMALL = CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2)
DOCUMENT = words(1, 120)
PROMPT = Prompt.from_context(DOCUMENT, "which words?")
KEY = "sk-secret-of-a-test"


def local_engine(**options):
    settings = {
        "embedder": HashEmbedder(),
        "compression": SMALL,
        "sampling": SamplingParams(max_new_tokens=12),
        **options,
    }
    return light_engine(**settings)


def require_key():
    """Return a middleware that refuses requests without `KEY`, as an app has one."""
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import JSONResponse

    async def check(request, call_next):
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": {"message": "wrong API key", "type": "authentication_error"}}, 401)
        return await call_next(request)

    return Middleware(BaseHTTPMiddleware, dispatch=check)


def serving(engine, **options):
    """Serve an engine's routes; a context manager that yields the URL."""
    pytest.importorskip("starlette")
    from rapid_integrations.server.remote.routes import routes

    return served(routes(engine), **options)
