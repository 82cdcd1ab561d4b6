"""Replicas of the server on a Ray cluster (extra `ray`): one engine for each, and a door that knows the documents.

    serve run rapid_integrations.server.ray_app:build target=smollm2-135m-instruct replicas=2

Ray Serve starts the replicas, restarts those that end, adds and removes some with the load, and replaces one after the
other when the settings change. Its consistent hashing gives a document to the replica that has read it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import EngineClosedError, MissingExtraError
from rapid_integrations.server.app import create_app
from rapid_integrations.server.failures import RETRY_S, ApiError
from rapid_integrations.server.ingress import Messages, ReplicaLost, create_ingress, run_app, settings_within
from rapid_integrations.server.ray_arguments import RayArguments
from rapid_integrations.server.settings import ServerSettings

try:
    from ray import serve
    from ray.exceptions import RayActorError, TaskCancelledError
    from ray.serve.config import RequestRouterConfig
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
    from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
    from ray.serve.handle import DeploymentHandle
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "ray":
        raise
    raise MissingExtraError(feature="rapid_integrations.server.ray_app", extra="ray") from None

_MOST_CONNECTIONS = 4096
_LOGS = {"enable_access_log": False}  # the app writes its own


def build(args: dict[str, Any]) -> Any:
    """Return the Serve application: an ingress, and engines behind it.

    Args:
        args: the fields of `RayArguments`.

    Raises:
        ConfigurationError: an argument is unknown or invalid.
    """
    arguments = RayArguments(**args)
    server = arguments.server
    most = server.max_running + server.max_waiting
    engines = serve.deployment(Engine).options(
        name="Engine",
        logging_config=_LOGS,
        # The app itself counts who runs and who waits, and refuses the rest in OpenAI's form.
        max_ongoing_requests=most + _MOST_CONNECTIONS,
        ray_actor_options={"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
        request_router_config=RequestRouterConfig(request_router_class=ConsistentHashRouter),
        graceful_shutdown_timeout_s=server.shutdown_s,
        health_check_period_s=5,
        **arguments.scale,
    )
    door = serve.deployment(Door).options(
        name="Door",
        logging_config=_LOGS,
        max_ongoing_requests=_MOST_CONNECTIONS,
        ray_actor_options={"num_cpus": 0},  # it waits nearly all the time
        graceful_shutdown_timeout_s=server.shutdown_s,
    )
    return door.bind(server, engines.bind(arguments))


class Engine:
    """A replica: an engine with the app of `rapid serve` over it.

    Args:
        arguments: its models and settings.
    """

    def __init__(self, arguments: RayArguments) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # several engines share a machine's cores
        _log_requests()
        self._engine = RapidEngine.from_pretrained(
            arguments.target,
            sampling=arguments.sampling,
            speculation=arguments.speculation,
            compression=arguments.compression,
            chat_template_kwargs=arguments.chat_template_kwargs,
            prefix_cache_dir=arguments.prefix_cache_dir,
            **arguments.models,
        )
        self._app = create_app(self._engine, settings_within(arguments.server))
        self._life = self._app.router.lifespan_context(self._app)
        self._name = serve.get_replica_context().replica_id.unique_id
        self._begun = False

    async def answer(self, scope: dict[str, Any], body: bytes) -> Messages:
        """Answer a request; yield its ASGI messages."""
        await self._begin()
        async for messages in run_app(self._app, scope, body):
            for message in messages:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-rapid-replica", self._name.encode())]
            yield messages

    async def metrics(self) -> tuple[str, bytes]:
        """Return the replica's name and what its /metrics says."""
        return self._name, self._app.state.rapid.metrics.text()

    def check_health(self) -> None:
        """Tell Ray whether the replica can go on.

        Raises:
            EngineClosedError: it cannot.
        """
        if self._engine.closed:
            raise EngineClosedError("the engine of a replica")

    async def __del__(self) -> None:
        """Close the engine. Ray calls this after the running requests have ended."""
        if getattr(self, "_begun", False):
            self._begun = False
            await self._life.__aexit__(None, None, None)
        if (engine := getattr(self, "_engine", None)) is not None and not engine.closed:
            await in_thread(engine.close)

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._life.__aenter__()


class Door:
    """The ingress of the application.

    Args:
        settings: keys, names and limits.
        engines: the replicas.
    """

    def __init__(self, settings: ServerSettings, engines: DeploymentHandle) -> None:
        _log_requests()
        self._app = create_ingress(_Handle(engines), settings)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        return _AsResponse(self._app)


class _AsResponse(Response):
    """An app in the place of a response: Serve hands it the connection."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class _Handle:
    """The replicas of a deployment, for the ingress."""

    def __init__(self, engines: DeploymentHandle) -> None:
        self._engines = engines

    async def ask(self, key: str | None, scope: dict[str, Any], body: bytes) -> Messages:
        """Yield the messages of the replica of a key."""
        options = {"stream": True, "method_name": "answer", **({} if key is None else {"session_id": key})}
        messages = self._engines.options(**options).remote(scope, body)
        complete = False
        try:
            async for batch in messages:
                yield batch
            complete = True
        except (RayActorError, TaskCancelledError) as error:
            raise ReplicaLost from error
        except BackPressureError as error:
            raise ApiError(429, "every replica is full. Ask again later", "rate_limit_exceeded", retry_s=RETRY_S) from (
                error
            )
        except DeploymentUnavailableError as error:
            raise ApiError(503, "no replica is running. Ask again later", "no_replica", retry_s=RETRY_S) from error
        finally:
            if not complete:
                messages.cancel()

    async def metrics(self) -> Mapping[str, bytes]:
        """Return the metrics of each replica, by its name."""
        found = await self._engines.broadcast("metrics").results_async(timeout_s=5, return_exceptions=True)
        return dict(each for each in found if isinstance(each, tuple))


def _log_requests() -> None:
    """Write the lines of the access log to the replica's own log."""
    logger = logging.getLogger("rapid")
    logger.setLevel(logging.INFO)
    logger.handlers = logging.getLogger("ray.serve").handlers
