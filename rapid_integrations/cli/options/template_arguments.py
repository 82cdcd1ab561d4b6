"""Arguments of chat templates, as NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from rapid_integrations.cli.options.panels import MODELS
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.prompt import TemplateArguments


def _template_argument(given: str) -> Any:
    """Return the name and the value of NAME=VALUE. typer shows what it raises, with the option's name."""
    name, equals, text = given.partition("=")
    if not (equals and name):
        raise typer.BadParameter(f"{given!r} is no NAME=VALUE, such as enable_thinking=false")
    try:
        value = json.loads(text)
    except ValueError:
        said = json.dumps(text, ensure_ascii=False)
        raise typer.BadParameter(
            f"{text!r} is no JSON value: write true, false, null, a number, or a text with its quotation marks "
            f"('{name}={said}')"
        ) from None
    try:
        return next(iter(TemplateArguments({name: value}).items()))
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


def template_arguments(given: Sequence[Any] | None) -> dict[str, Any]:
    """Return the values of the option `TemplateArgument`, which its parser has made pairs of, by their names."""
    return dict(given or ())


TemplateArgument = Annotated[
    list[str] | None,
    typer.Option(
        "--template-argument",
        parser=_template_argument,
        metavar="NAME=VALUE",
        help="Argument of the model's chat template, with a JSON value, as in enable_thinking=false. Repeat the option "
        "for more.",
        rich_help_panel=MODELS,
    ),
]
