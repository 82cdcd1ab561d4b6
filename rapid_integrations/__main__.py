"""The `rapid` command, also as `python -m rapid_integrations`. Ctrl-C ends it in one line, however early it comes."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rapid_integrations.cli.few_collections import few_collections
from rapid_integrations.cli.interruption import INTERRUPTED, never_swallowed

if TYPE_CHECKING:
    from typer import Typer


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a pipe may have another encoding than the answer needs
    warnings.formatwarning = _on_one_line
    with few_collections(), never_swallowed():
        try:
            app_for(sys.argv[1:])()
        except KeyboardInterrupt:  # while modules are loading; after that, `errors_taught` handles it
            sys.stderr.write("\ninterrupted\n")
            sys.exit(INTERRUPTED)
        finally:  # nothing is left to be put right: while the interpreter waits for a pass, Ctrl-C ends it at once
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _on_one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning for people who did not write the program: without the place and the line of code."""
    return f"warning: {message}\n"


def app_for(arguments: Sequence[str]) -> Typer:
    """Return the command line that answers `arguments`: with one command if they begin with its name, else whole."""
    from rapid_integrations.cli.one_command import ALONE, app_with

    if arguments and arguments[0] in ALONE:
        return app_with(arguments[0])
    from rapid_integrations.cli.app import app

    return app


if __name__ == "__main__":
    main()
