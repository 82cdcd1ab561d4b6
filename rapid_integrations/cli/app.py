"""The `rapid` command. It is a thin layer over the engine's public interface."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

import rapid_integrations
from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.ask import ask
from rapid_integrations.cli.bench import bench_app
from rapid_integrations.cli.cached import cache_app
from rapid_integrations.cli.chat import chat
from rapid_integrations.cli.console import errors_taught, stderr, stdout
from rapid_integrations.cli.datastore import datastore_app
from rapid_integrations.cli.evaluate import eval_app
from rapid_integrations.cli.one_command import new_app
from rapid_integrations.cli.options import AsJson, with_option_groups
from rapid_integrations.cli.read import read
from rapid_integrations.cli.serve import keys_app, serve
from rapid_integrations.cli.train_head import train_head
from rapid_integrations.config import DEFAULT_EMBEDDER, DEFAULT_TARGET

app = new_app()


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"rapid-integrations {rapid_integrations.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Keep the option that belongs to no command."""


models_app = typer.Typer(
    help="Manage the packaged models. They come from PyPI wheels and need no account.", no_args_is_help=True
)
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")
app.add_typer(bench_app, name="bench")
app.add_typer(eval_app, name="eval")
app.add_typer(keys_app, name="keys")
app.add_typer(datastore_app, name="datastore")


app.command()(with_option_groups(ask))
app.command()(with_option_groups(chat))
app.command()(with_option_groups(read))
app.command()(with_option_groups(serve))
app.command("train-head")(with_option_groups(train_head))


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the packaged models and whether they are on this machine."""
    from rapid_integrations import packaged

    with errors_taught():
        rows = [
            {
                "name": model.name,
                "kind": model.kind,
                "megabytes": round(model.size_bytes / 1e6),
                "licence": model.licence,
                "pulled": packaged.is_pulled(model.name),
                "description": model.description,
            }
            for model in packaged.MODELS.values()
        ]
        if as_json:
            sys.stdout.write(json.dumps(rows) + "\n")
            return
        table = Table(show_edge=False)
        columns = [name for name in rows[0] if name != "description"]  # there is no room for it beside the others
        for column in columns:
            justify: Any = "right" if column == "megabytes" else "left"
            table.add_column(column, justify=justify, no_wrap=True)
        for row in rows:
            cells = (row[column] for column in columns)
            table.add_row(*("yes" if cell is True else "no" if cell is False else str(cell) for cell in cells))
        stdout.print(table)
        stdout.print()
        for row in rows:
            stdout.print(f"{row['name']}: {row['description']}", highlight=False)


@models_app.command("check")
def check_model(
    name: Annotated[
        str, typer.Argument(help="Model folder, GGUF file, packaged name, or name on the Hugging Face hub.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say from its configuration alone whether and how a model would run. No weights are read."""
    with errors_taught():
        from rapid_integrations.models.run_check import check

        kind = check(name)
        if as_json:
            sys.stdout.write(json.dumps(vars(kind)) + "\n")
        else:
            sys.stdout.write(f"{kind.how}: {kind.architecture or name}\n")
            if kind.reason:
                sys.stdout.write(kind.reason + "\n")
            if kind.weights:
                sys.stdout.write(kind.weights + "\n")
    if kind.how == "refused":
        raise typer.Exit(1)


@models_app.command("pull")
def pull_models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Packaged names. Default: the target and the embedder.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Fetch models again that are already on this machine.")] = False,
) -> None:
    """Fetch packaged models, verify their checksums and print their paths."""
    from rapid_integrations import packaged

    with errors_taught():
        for name in names or (DEFAULT_TARGET, DEFAULT_EMBEDDER):
            with ProgressView(stderr) as progress:
                path = packaged.pull(name, progress, force=force)
            sys.stdout.write(f"{path}\n")
