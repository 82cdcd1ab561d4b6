"""The `rapid` command, also as `python -m rapid_integrations`. Ctrl-C ends it in one line, however early it comes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rapid_integrations.cli.interruption import INTERRUPTED

_NEW_OBJECTS = 100_000  # objects that are made before the garbage collector looks at the new ones; Python's own is 700


@contextmanager
def few_collections() -> Iterator[None]:
    """Let the garbage collector run rarely in a process that ends with the block.

    Imported modules are a million objects that stay. Looking at them again and again takes a fifth of the start, and
    looking at them once more when the process ends takes half a second.
    """
    gc.set_threshold(_NEW_OBJECTS)
    try:
        yield
    finally:
        gc.freeze()


def main() -> None:
    """Run the command line."""
    with few_collections():
        try:
            from rapid_integrations.cli.app import app

            app()
        except KeyboardInterrupt:  # while modules are loading; after that, `errors_taught` handles it
            sys.stderr.write("\ninterrupted\n")
            sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
