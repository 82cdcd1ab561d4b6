"""What a folder of saved KV caches holds: listing, verifying and removing its files. Loads no model."""

from __future__ import annotations

import stat
import time
from dataclasses import dataclass
from pathlib import Path

from rapid_integrations.cache.prefix_store import VERSION
from rapid_integrations.cache.saved_cache import read_cache, read_prefix
from rapid_integrations.errors import CacheError, ConfigurationError

_NAME = 12  # characters


@dataclass(frozen=True)
class StoredFile:
    """A saved KV cache.

    Attributes:
        path: the file.
        about: the beginning of the text; "" for a file of an earlier version.
        model: the model's name, or the beginning of its fingerprint.
        tokens: the tokens whose keys and values it holds.
        nbytes: the file's size.
        age_s: seconds since it was last used.
        error: why it cannot be used; None if it can.
    """

    path: Path
    about: str
    model: str
    tokens: int
    nbytes: int
    age_s: float
    error: str | None = None

    @property
    def name(self) -> str:
        """A short name, which `rapid cache remove` takes: the beginning of the digest of the text."""
        return self.path.stem.rsplit("-", 1)[-1][:_NAME]


def stored_files(folder: Path, *, verify: bool = False) -> list[StoredFile]:
    """Return the saved KV caches in a folder, the most recently used first.

    Args:
        folder: the `prefix_cache_dir` of an engine.
        verify: compare every byte with the file's digest, not only its header.

    Raises:
        ConfigurationError: the folder does not exist.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder} is not a folder: name the one that --prefix-cache-dir (prefix_cache_dir=) has named before",
            code="no_folder",
        )
    files = [_stored(path, verify) for path in folder.glob(f"{VERSION}-*.safetensors")]
    return sorted((file for file in files if file is not None), key=lambda file: file.age_s)


def _stored(path: Path, verify: bool) -> StoredFile | None:
    model = path.stem.split("-")[1] if path.stem.count("-") > 1 else ""
    try:
        status = path.stat()
    except FileNotFoundError:  # another process has just removed it
        return None
    except OSError as error:
        return StoredFile(path, "", model, 0, 0, 0.0, f"{path} cannot be read: {error.strerror}")
    age = max(0.0, time.time() - status.st_mtime)
    if not stat.S_ISREG(status.st_mode):
        return StoredFile(path, "", model, 0, 0, age, f"{path} is not a file")
    try:
        saved = read_cache(path, 0, 0)[0] if verify else read_prefix(path)
    except CacheError as error:
        return StoredFile(path, "", model, 0, status.st_size, age, str(error))
    model = saved.labels.get("model") or saved.model[:_NAME]
    return StoredFile(path, saved.labels.get("about", ""), model, len(saved.token_ids), status.st_size, age)
