"""An app over a tiny engine, and a client of it; with settings of a test's own where it needs them."""

import pytest

from rapid_integrations.server.settings import ServerSettings
from tests.toys.served import client_of, running, tiny_engine

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def engine():
    with tiny_engine() as made:
        yield made


@pytest.fixture(scope="module")
def app_of(engine, tmp_path_factory):
    """Return a function that makes an app over the module's engine."""
    for needed in ("starlette", "multipart", "prometheus_client", "uvicorn"):
        pytest.importorskip(needed)
    from rapid_integrations.server.app import create_app

    def made(**settings):
        folder = settings.pop("files_dir", None) or tmp_path_factory.mktemp("files")
        given = settings.pop("engine", engine)
        return create_app(given, ServerSettings(files_dir=folder, model_name="tiny", **settings))

    return made


@pytest.fixture(scope="module")
def address(app_of):
    with running(app_of()) as found:
        yield found


@pytest.fixture(scope="module")
def client(address):
    with client_of(address) as made:
        yield made
