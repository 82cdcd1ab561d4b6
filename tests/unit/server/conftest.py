"""Every test of the server may use its fixtures."""

from tests.toys.server_app import address, app_of, client, engine  # noqa: F401
