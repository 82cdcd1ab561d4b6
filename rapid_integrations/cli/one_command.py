"""The command line with one command, so that a process imports the modules of the command it runs and no others."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

import typer

ALONE = MappingProxyType({name: f"rapid_integrations.cli.{name}" for name in ("ask", "chat", "read", "serve")})
"""Name to module of the commands that people wait for. The function has the command's name."""


def new_app() -> typer.Typer:
    """Return the command line without commands."""
    return typer.Typer(
        help="Answer questions over long documents with retrieval-augmented speculative decoding (RAPID).",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )


def app_with(name: str) -> typer.Typer:
    """Return the command line with one command of `ALONE`."""
    from rapid_integrations.cli.options import with_option_groups

    app = new_app()
    app.callback()(lambda: None)  # keeps the command's name in front of its arguments
    app.command(name)(with_option_groups(getattr(import_module(ALONE[name]), name)))
    return app
