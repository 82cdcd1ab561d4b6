"""The socket of `rapid serve`."""

import socket

import pytest

pytest.importorskip("uvicorn")

from rapid_integrations import ConfigurationError
from rapid_integrations.server.serving import listening


def test_a_port_is_taken_as_soon_as_another_server_loads_its_models():
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen at 127.0.0.1 port {port}: .* Give another --port"):
            listening("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=5):  # a client waits for the models
            pass
    listening("127.0.0.1", port).close()  # at once, although the last connection is not forgotten yet
