"""`create_app` puts the parts of a server together (Starlette)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from python_multipart.exceptions import FormParserError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rapid_integrations.config import home
from rapid_integrations.documents import ReadLimits
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import RapidError
from rapid_integrations.server.access import Access, Failures
from rapid_integrations.server.deadlines import Deadlines
from rapid_integrations.server.failures import ApiError, api_error
from rapid_integrations.server.file_store import FileStore
from rapid_integrations.server.guard import Guard, KeyGuard
from rapid_integrations.server.keys import KeyFile
from rapid_integrations.server.limits import BodyLimits
from rapid_integrations.server.metrics import Metrics
from rapid_integrations.server.page import routes as page_routes
from rapid_integrations.server.reading import BackgroundReading
from rapid_integrations.server.remote.routes import routes as remote_routes
from rapid_integrations.server.routes import answers, embeddings, files, models, operation
from rapid_integrations.server.settings import ServerSettings
from rapid_integrations.server.state import ServerState
from rapid_integrations.server.turns import Turns


def create_app(engine: RapidEngine, settings: ServerSettings | None = None) -> Starlette:
    """Return the app of a server. The engine stays the caller's, who closes it afterwards.

    Args:
        engine: answers the requests.
        settings: limits, places and times.

    Raises:
        ConfigurationError: the folder of the documents or the file of the keys cannot be used.
    """
    settings = settings or ServerSettings()
    state = _state(engine, settings)
    routes: list[Route] = [
        *page_routes(),
        *operation.routes(state),
        *models.routes(state),
        *files.routes(state),
        *answers.routes(state),
        *embeddings.routes(state),
        *remote_routes(engine, state.turn),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if not settings.shared_files:  # the files of other servers are being read by them
            state.reading.resume()
        yield
        state.deadlines.stop()
        await state.reading.aclose()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(Access, metrics=state.metrics, routes={route.endpoint: route.path for route in routes}),
            *guards(settings),
        ],
        exception_handlers={
            ApiError: _failed,
            RapidError: _failed,
            FormParserError: _no_form,
            HTTPException: _refused,
        },
    )
    app.state.rapid = state
    return app


def require_places(settings: ServerSettings) -> None:
    """Look at the files that `create_app` will use, before minutes are spent on loading models.

    Raises:
        ConfigurationError: see `create_app`.
    """
    if settings.api_keys is not None:
        KeyFile(settings.api_keys)
    _store(settings)


def guards(settings: ServerSettings) -> list[Middleware]:
    """Return the layers that refuse requests before anything is done for them, the outermost first.

    Raises:
        ConfigurationError: the file of the keys cannot be used.
    """
    keys = None if settings.api_keys is None else KeyFile(settings.api_keys)
    return [
        Middleware(Guard, settings=settings),
        *_cross_origin(settings),
        *([] if keys is None else [Middleware(KeyGuard, keys=keys)]),
        Middleware(BodyLimits, settings=settings),
    ]


def _state(engine: RapidEngine, settings: ServerSettings) -> ServerState:
    store = _store(settings)
    limits = ReadLimits(file_bytes=settings.max_file_bytes)
    metrics = Metrics()
    turns = Turns(settings.max_running, settings.max_waiting, lambda: engine.held_up_requests)
    metrics.watch("rapid_running_requests", "Requests that have a turn", lambda: turns.running)
    metrics.watch("rapid_waiting_requests", "Requests that wait", lambda: turns.waiting)
    metrics.watch("rapid_files", "Kept documents", lambda: len(store))
    metrics.watch("rapid_kv_bytes", "Bytes of all KV caches", lambda: 0 if engine.closed else engine.kv_bytes)
    return ServerState(
        engine=engine,
        settings=settings,
        files=store,
        reading=BackgroundReading(engine, store, limits, settings.read_timeout_s),
        turns=turns,
        embedding_turns=Turns(settings.max_running, settings.max_waiting, lambda: 0),
        deadlines=Deadlines(settings.request_timeout_s),
        metrics=metrics,
    )


def _store(settings: ServerSettings) -> FileStore:
    return FileStore(settings.files_dir or home() / "files", settings.max_files, settings.max_files_bytes)


def _cross_origin(settings: ServerSettings) -> list[Middleware]:
    """Return the layers that let pages of other origins call the server; none unless origins are allowed.

    Requests that fail are answered within them. Without their headers a browser hides the status from its page, which
    then takes a wrong key for a broken network.
    """
    if not settings.allowed_origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(settings.allowed_origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["Retry-After", "X-Request-Id"],
    )
    return [cors, Middleware(Failures)]


async def _failed(_: Request, error: Exception) -> Response:
    return api_error(error).response()


async def _no_form(_: Request, error: Exception) -> Response:
    return ApiError(400, f"the form cannot be read: {error}", "invalid_form").response()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        said = "the server has no such path. It describes its own at /openapi.json; a client's base URL ends with /v1"
        if request.url.path.startswith("/v1/responses"):
            said = (
                "the server has no Responses API. Let the client use chat completions (LangChain: "
                'use_responses_api=False; OpenAI\'s Agents SDK: set_default_openai_api("chat_completions"))'
            )
        return ApiError(404, f"Invalid URL: {said}", "unknown_url").response()
    response = ApiError(error.status_code, f"{request.method[:10]}: {error.detail}", "refused").response()
    response.headers.update(error.headers or {})
    return response
