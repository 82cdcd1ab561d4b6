"""The commands `rapid cache list`, `remove` and `verify` look after a folder of cached documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from rapid_integrations.cli.console import errors_taught, say, stdout
from rapid_integrations.cli.options import AsJson
from rapid_integrations.cli.tables import printable
from rapid_integrations.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid_integrations.cache.stored_files import StoredFile

cache_app = typer.Typer(help="Look after a folder of cached documents (--prefix-cache-dir).", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--prefix-cache-dir", help="The folder.")]

_DAY_S = 86_400.0


@cache_app.command("list")
def list_cached(prefix_cache_dir: Folder, as_json: AsJson = False) -> None:
    """List the cached documents, the most recently used first: text, tokens, size, age and model."""
    from rapid_integrations.cache.stored_files import stored_files

    with errors_taught():
        _show(stored_files(prefix_cache_dir), as_json)


@cache_app.command("verify")
def verify_cached(prefix_cache_dir: Folder, as_json: AsJson = False) -> None:
    """Compare every byte of the cached documents with its digest. The exit status is 1 if a file is damaged."""
    from rapid_integrations.cache.stored_files import stored_files

    with errors_taught():
        files = stored_files(prefix_cache_dir, verify=True)
        _show(files, as_json)
        damaged = [file for file in files if file.error is not None]
        for file in damaged:
            say(file.error or "")
        say(f"{len(files) - len(damaged):,} of {len(files):,} files are sound")
        if damaged:
            raise typer.Exit(1)


@cache_app.command("remove")
def remove_cached(
    prefix_cache_dir: Folder,
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, or beginnings of them, as `list` shows them.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Remove documents that have not been used for so many days.")
    ] = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Remove files that do not match their digest.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Remove every document, and the embeddings.")] = False,
) -> None:
    """Remove cached documents. They are prefilled again when they are asked about."""
    from rapid_integrations.cache.stored_files import stored_files
    from rapid_integrations.compression.default_compressor import EMBEDDINGS

    with errors_taught():
        if not (names or everything or damaged or older_than is not None):
            raise ConfigurationError(
                "nothing was named to remove: give names that `rapid cache list` shows, --older-than, --damaged or "
                "--all",
                code="nothing_named",
            )
        files = stored_files(prefix_cache_dir, verify=damaged)
        chosen = {file.path: file for name in names or () for file in _named(name, files)}
        chosen |= {
            file.path: file
            for file in files
            if everything
            or (damaged and file.error is not None)
            or (older_than is not None and file.age_s > older_than * _DAY_S)
        }
        for path in chosen:
            _remove(path)
        if everything:
            for path in prefix_cache_dir.glob(f"{EMBEDDINGS}*"):
                _remove(path)
        say(f"{len(chosen):,} removed, {sum(file.nbytes for file in chosen.values()) / 2**20:,.1f} MiB")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be removed ({error.strerror}): remove it yourself") from error


def _named(name: str, files: Sequence[StoredFile]) -> list[StoredFile]:
    if not name.strip():  # a variable of a shell that is not set
        raise ConfigurationError("one of the names is empty: `rapid cache list` shows the names", code="not_cached")
    found = [file for file in files if file.name.startswith(name)]
    if len(found) != 1:
        what = "no cached document has that name" if not found else f"{len(found)} cached documents begin with it"
        raise ConfigurationError(f"{name}: {what}. `rapid cache list` shows the names", code="not_cached")
    return found


def _show(files: Sequence[StoredFile], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "name": file.name,
                "about": file.about,
                "model": file.model,
                "tokens": file.tokens,
                "bytes": file.nbytes,
                "age_s": round(file.age_s),
                "error": file.error,
            }
            for file in files
        ]
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    table = Table(show_edge=False)
    for column in ("name", "about", "model", "tokens", "MiB", "last used"):
        justify: Any = "right" if column in ("tokens", "MiB", "last used") else "left"
        table.add_column(column, justify=justify, no_wrap=column != "about")
    for file in files:
        about = "(damaged, or of another version)" if file.error else file.about
        table.add_row(
            file.name,
            escape(printable(about)),
            escape(printable(file.model)),
            f"{file.tokens:,}",
            f"{file.nbytes / 2**20:,.1f}",
            _age(file.age_s),
        )
    stdout.print(table)


def _age(seconds: float) -> str:
    for unit, length in (("d", _DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
