"""The `rapid` command, also as `python -m rapid_integrations`. Ctrl-C ends it in one line, however early it comes."""

from __future__ import annotations

import signal
import sys

from rapid_integrations.cli.few_collections import few_collections
from rapid_integrations.cli.interruption import INTERRUPTED


def main() -> None:
    """Run the command line."""
    with few_collections():
        try:
            from rapid_integrations.cli.one_command import app_for

            app_for(sys.argv[1:])()
        except KeyboardInterrupt:  # while modules are loading; after that, `errors_taught` handles it
            sys.stderr.write("\ninterrupted\n")
            sys.exit(INTERRUPTED)
        finally:  # nothing is left to be put right: while the interpreter waits for a pass, Ctrl-C ends it at once
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
