"""Consoles of the commands, and the display of answers and errors."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from rapid_integrations.cli.interruption import INTERRUPTED
from rapid_integrations.cli.tables import printable
from rapid_integrations.errors import ConfigurationError, RapidError, public_name

if TYPE_CHECKING:
    from rapid_integrations.outputs import Completion

_OF_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.ENXIO}

stdout = Console()
stderr = Console(stderr=True)  # progress and tables, so that the answer alone can be piped


def say(message: str) -> None:
    """Write a line to standard error. Names of documents and files are not interpreted as markup."""
    stderr.print(printable(message), markup=False, highlight=False, soft_wrap=True)


def write_answer(text: str) -> None:
    """Write a piece of an answer to standard output at once. A terminal gets no control characters."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_json(line: str) -> None:
    """Write a line of JSON to standard output. What its encoding does not have is escaped."""
    try:
        line.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        line = json.dumps(json.loads(line))
    sys.stdout.write(line + "\n")


def require_writable(path: Path) -> None:
    """Refuse a path that cannot be written before the models are loaded, not after the answer."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"{path} cannot be written: name a file in a folder that exists and can be written to")


def make_folder(path: Path) -> None:
    """Make a folder, or refuse a path that cannot be one or cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be a folder: {error.strerror or error}. Name another") from error
    if not os.access(path, os.W_OK):
        raise ConfigurationError(f"nothing can be written to {path}: name another folder")


def write_file(path: Path, text: str) -> None:
    """Write a file of results, in UTF-8."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error


def write_trace(path: Path, completion: Completion, names: Sequence[str]) -> None:
    """Write the page about an answer and print its path."""
    from rapid_integrations.trace import write_html

    write_html(path, completion, names)
    say(f"trace: {path}")


def show_error(error: RapidError) -> None:
    """Write an error as one sentence."""
    stderr.print(f"[bold red]error:[/] {public_name(error)}: ", end="")
    # In a log or a pipe, it stays one line.
    stderr.print(printable(str(error)), markup=False, highlight=False, soft_wrap=not stderr.is_terminal)


@contextmanager
def errors_taught() -> Iterator[None]:
    """Show this package's errors as one sentence, and those of standard output, and handle Ctrl-C.

    Other errors keep their traceback.
    """
    try:
        yield
        sys.stdout.flush()  # Python would do it behind all this
    except RapidError as error:
        show_error(error)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        stderr.print("\ninterrupted")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader of the answer has gone
        sys.stderr.close()
        raise typer.Exit(0) from None
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_OUTPUT:  # a file's or a socket's: not known here
            raise
        with suppress(OSError):
            sys.stdout.close()  # with what it still holds
        reason = error.strerror or error
        show_error(ConfigurationError(f"standard output cannot be written ({reason}): write the answer elsewhere"))
        raise typer.Exit(1) from None
