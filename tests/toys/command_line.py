"""The `rapid` command in the test's own process; its tree of commands and options is built once, not for each call."""

import functools
from unittest import mock

import typer
import typer.testing

_command = functools.cache(typer.main.get_command)


class CliRunner(typer.testing.CliRunner):
    """Typer's, which builds the whole tree for each call: that takes longer than many commands."""

    def invoke(self, *arguments, **options):
        with mock.patch.object(typer.testing, "_get_command", _command):
            return super().invoke(*arguments, **options)
