"""A folder for the `rapid` command to run in."""

from tests.toys.cli_folder import folder

__all__ = ["folder"]
