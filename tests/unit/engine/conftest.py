"""Fixtures of the host classes over a model in a folder."""

from tests.toys.host_llms import engine, folder, host, make, registry

__all__ = ["engine", "folder", "host", "make", "registry"]
