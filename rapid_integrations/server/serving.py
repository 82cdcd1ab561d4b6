"""Runs an app with uvicorn until it is asked to stop, and lets the running answers end."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

import uvicorn
from starlette.applications import Starlette

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.server.state import ServerState

logger = logging.getLogger("rapid.server")

_LOOK_S = 0.05  # interval at which a stopping server looks whether the answers have ended
_MOST_CONNECTIONS = 4096
_IDLE_S = 75  # of a connection, between requests. A proxy that keeps one for 60 s must not meet a closed one (502)
_LAST_WORDS_S = 5  # for the answers that are cut to say so


class GracefulServer(uvicorn.Server):
    """A server that takes no new answers when it stops, waits for the running ones, and then cuts them.

    Args:
        config: uvicorn's settings.
        state: the app's.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config)
        self._state = state

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the running answers end within `shutdown_s`. The rest is told that the server stops."""
        deadlines = self._state.deadlines
        deadlines.stop()
        logger.info("stopping: %d answers are running", deadlines.running)
        until = asyncio.get_running_loop().time() + self._state.settings.shutdown_s
        while deadlines.running and not self.force_exit and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_LOOK_S)
        if deadlines.running:
            logger.warning("%d answers did not end within the time for stopping, and are cut", deadlines.running)
            deadlines.cut()
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn leaves the app's own end out then
            await self.lifespan.shutdown()


def require_certificate(certificate: str, key: str) -> None:
    """Look at the files of a certificate and of its key.

    Raises:
        ConfigurationError: a file cannot be read, is no PEM, or has a password, or they do not belong together.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"--tls-certificate {certificate} and --tls-key {key} cannot be used ({reason}): give two PEM files, the "
            "certificate with those of its issuers and its key without a password"
        ) from error


def server_of(app: Starlette, host: str, port: int, tls: tuple[str, str] | None = None) -> GracefulServer:
    """Return a server for an app of `create_app`.

    Args:
        app: the app.
        host: address to listen at.
        port: port to listen at; 0 takes a free one.
        tls: files of the certificate and of its key; None serves plain HTTP.
    """
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # uvicorn's has paths and queries
        server_header=False,
        ws="none",
        http="h11",  # httptools, which uvicorn takes where it is installed, has no limit for headers
        lifespan="on",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_LAST_WORDS_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    return GracefulServer(config, app.state.rapid)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address, so that a taken port is an error of this package.

    Clients that come before the models are loaded wait for them.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(_MOST_CONNECTIONS)  # two sockets may be bound to one port until one of them listens
        except BaseException:
            found.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"the server cannot listen at {host} port {port}: {reason}. Give another --port or --host"
        ) from error
    return found
