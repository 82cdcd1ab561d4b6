"""The `rapid` command in the test's own process; its tree of commands and options is built once, not for each call."""

import functools

import typer
import typer.testing


@functools.cache
def _command(app):
    return typer.main.get_command(app)


class CliRunner(typer.testing.CliRunner):
    """Typer's, which builds the whole tree for each call: that takes longer than many commands."""

    def invoke(self, app, *arguments, **options):
        return super(typer.testing.CliRunner, self).invoke(_command(app), *arguments, **options)
