"""Every route that this server offers to engines on other machines."""

from __future__ import annotations

from contextlib import nullcontext

from starlette.routing import Route

from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.server.remote.complete_routes import Turn, complete_routes
from rapid_integrations.server.remote.drafter_routes import drafter_routes


def routes(engine: RapidEngine, turn: Turn = nullcontext) -> list[Route]:
    """Return the routes of the remote engine and of the remote drafter, for an app that authenticates its callers.

    Args:
        engine: the engine. The caller closes it after the server has ended.
        turn: returns what each answer is made within, such as the wait for a free place.
    """
    return [*complete_routes(engine, turn), *drafter_routes(engine)]
