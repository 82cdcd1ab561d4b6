"""What the package's files import."""

import ast
import functools
from pathlib import Path

import rapid_integrations

PACKAGE = Path(rapid_integrations.__file__).parent


@functools.cache
def imported(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in it, and every name it takes from one ("module.name")."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def files(folder: str = "") -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))
