"""python -m rapid_integrations.kernels.cpu: compile the kernels for this machine, and keep them for later processes."""

from __future__ import annotations

import sys

from rapid_integrations.kernels.cpu.compiler import NoKernelsError, compiled, find_compiler
from rapid_integrations.progress import ignore_progress


def main() -> int:
    """Return 0, or 1 if there are no kernels to be had."""
    try:
        library = compiled(ignore_progress)
    except NoKernelsError as error:
        hint = "" if find_compiler() else ". What helps: pip install ziglang"
        print(f"error: {error}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    print(library._name)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
