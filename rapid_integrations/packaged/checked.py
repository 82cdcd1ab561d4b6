"""Remembers between processes that something was checked and found right, by a digest of all that the check read.

An empty file in `$RAPID_HOME/checked` stands for each check that passed. Its name is the digest, so that a change of
anything that was checked has another name, and the check is repeated. Nothing is read from these files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rapid_integrations.config import home

_FOLDER = "checked"


def is_checked(key: str) -> bool:
    """Return whether the check with this digest has passed before."""
    return _file(key).is_file()


def remember(key: str) -> None:
    """Note that the check has passed. If the folder cannot be written, the check is repeated the next time."""
    path = _file(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch()
    except OSError:
        return


def key_of(*parts: object) -> str:
    """Return a digest of parts by their `repr`, in hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _file(key: str) -> Path:
    return home() / _FOLDER / key
