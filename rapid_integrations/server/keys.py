"""API keys: a file holds their hashes, one a line, and the server asks for one of them.

A key is made of 32 random bytes, so its SHA-256 hash cannot be turned back by trying; a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from rapid_integrations.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}) ([0-9a-f]{64})")
PREFIX = "rapid-"
_MOST_CHARACTERS = 512  # of a key that a client gives


class KeyFile:
    """The file of hashed keys. A running server sees its changes.

    Args:
        path: the file. Each line is a name, a space and the SHA-256 of the key in hexadecimal digits.

    Raises:
        ConfigurationError: the file cannot be read, or a line is malformed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._hashes: dict[str, str] = {}  # by name
        self._refresh()

    @property
    def names(self) -> list[str]:
        """The names of the keys, in the order of the file."""
        self._refresh()
        return list(self._hashes)

    def owner(self, key: str) -> str | None:
        """Return the name of a key, or None if it is no key of the file."""
        self._refresh()
        found = None
        if len(key) <= _MOST_CHARACTERS:
            hashed = _hash(key)
            for name, expected in self._hashes.items():  # all of them, so that the time tells nothing
                if hmac.compare_digest(hashed, expected):
                    found = name
        return found

    def _refresh(self) -> None:
        try:
            facts = self._path.stat()
            seen = (facts.st_mtime_ns, facts.st_size)
            if seen == self._seen:
                return
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the file of API keys cannot be read ({type(error).__name__}): make it with `rapid keys add NAME "
                "--file FILE`"
            ) from None
        hashes = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            if (found := _LINE.fullmatch(line.strip())) is None:
                raise ConfigurationError(
                    f"line {number} of the file of API keys is not a name and a SHA-256 hash: add keys with `rapid "
                    "keys add NAME --file FILE`, which keeps no key itself"
                )
            hashes[found[1]] = found[2]
        self._hashes, self._seen = hashes, seen


def add_key(path: Path, name: str) -> str:
    """Make a key, add its hash to the file and return the key, which is kept nowhere.

    Raises:
        ConfigurationError: the name is malformed or taken, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"the name {name[:80]!r} of a key: take 1 to 64 letters, digits, dots, _ and -")
    names = KeyFile(path).names if path.exists() else []
    if name in names:
        raise ConfigurationError(f"the file has a key named {name!r} already: remove it first, or take another name")
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
            file.write(f"{_line_break(path)}{name} {_hash(key)}\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}. Name another file") from error
    return key


def remove_key(path: Path, name: str) -> None:
    """Remove a key from the file. A running server refuses it from then on.

    Raises:
        ConfigurationError: the file has no such key, or cannot be written.
    """
    if name not in KeyFile(path).names:
        raise ConfigurationError(f"the file has no key named {name[:80]!r}: `rapid keys list` shows the names")
    kept = [line for line in path.read_text("utf-8").splitlines() if line.strip().partition(" ")[0] != name]
    temporary = path.with_name(path.name + ".new")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in kept))
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error


def _line_break(path: Path) -> str:
    """Return what ends a last line that an editor has left without its end."""
    data = path.read_bytes()
    return "\n" if data and not data.endswith(b"\n") else ""


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
