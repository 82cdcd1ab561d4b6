"""Every route that this server offers to engines on other machines."""

from __future__ import annotations

from starlette.routing import Route

from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.server.remote.complete_routes import complete_routes
from rapid_integrations.server.remote.drafter_routes import drafter_routes


def routes(engine: RapidEngine) -> list[Route]:
    """Return the routes of the remote engine and of the remote drafter, for an app that authenticates its callers."""
    return [*complete_routes(engine), *drafter_routes(engine)]
