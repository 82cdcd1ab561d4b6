"""/health, /ready and /metrics: what an operator's programs ask."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rapid_integrations.server.metrics import CONTENT_TYPE
from rapid_integrations.server.state import ServerState


def routes(state: ServerState) -> list[Route]:
    """Return the routes of operation."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        reason = "stopping" if state.deadlines.stopping else "engine_closed" if state.engine.closed else None
        if reason is not None:
            return JSONResponse({"status": reason}, 503)
        return JSONResponse({"status": "ready", "running": state.turns.running, "waiting": state.turns.waiting})

    async def metrics(_: Request) -> Response:
        return Response(state.metrics.text(), media_type=CONTENT_TYPE)

    return [
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
