"""docs/command_line.md: the commands and their options, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import annotated_types
from typer.main import get_command

from docs.reference.tables import Row, default_text, table, values_of
from rapid_integrations.cli.app import app

COMMAND_LINE = """# Command line

`make docs-reference` generates this page from the commands themselves, and a test keeps it up to date. `rapid COMMAND
--help` says the same, in panels. [Configuration](configuration.md) says what the settings do. An error ends a command
with one sentence and exit status 1 ([troubleshooting](troubleshooting.md)), a wrong option with 2, and Ctrl-C with 130.
"""


def command_line() -> str:
    """Return the text of docs/command_line.md."""
    return COMMAND_LINE + "".join(_commands(get_command(app), "rapid"))


def _commands(command: Any, name: str) -> Iterator[str]:
    """Yield a section for each command, groups first."""
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        hints = get_type_hints(command.callback, include_extras=True)
        rows = [_option(each, hints[each.name]) for each in command.params if each.name in hints]
        yield f"\n## {name}\n\n{inspect.cleandoc(command.help or '')}\n\n"
        yield table(("option", "values", "default", "what it is"), rows) + "\n"
    for word, subcommand in subcommands.items():
        yield from _commands(subcommand, f"{name} {word}")


def _option(parameter: Any, hint: Any) -> Row:
    annotation, info = get_args(hint)
    names = [*parameter.opts, *parameter.secondary_opts]
    shown = ", ".join(f"`{name}`" for name in names) if names[0].startswith("-") else f"`{names[0].upper()}`"
    limits: list[Any] = [annotated_types.Ge(info.min)] if info.min is not None else []
    limits += [annotated_types.Le(info.max)] if info.max is not None else []
    values = "" if annotation is bool else values_of(annotation, limits).removesuffix(" or None")
    value = parameter.default
    default = "required" if parameter.required else "" if value in (None, [], ()) else default_text(value)
    if annotation is bool:
        default = "on" if value else "off"
    elif isinstance(value, Path):
        default = f"`{value}`"
    unquoted = (cell.replace('`"', "`").replace('"`', "`") for cell in (values, default))
    return shown, *unquoted, (parameter.help or "").rstrip(".")
