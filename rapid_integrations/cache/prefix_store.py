"""The prefix store: KV caches on disk, which survive a restart."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from rapid_integrations.cache.kv_cache import KVCache
from rapid_integrations.cache.prefix_cache import TokenIds, common_prefix
from rapid_integrations.cache.saved_cache import (
    SavedPrefix,
    WriteInterrupted,
    layout_of,
    read_cache,
    read_prefix,
    write_cache,
)
from rapid_integrations.errors import CacheError, ConfigurationError, SharedResource

MIN_GAIN_TOKENS = 256  # tokens that a file must add, to be read or written
DISK_SHARE = 4  # "auto" is 1/4 of what is free and what the files take

VERSION = "v1"  # files of other versions have other names and are left alone
_PARTIAL = ".partial-"
_ABANDONED_S = 3600.0  # after this time nobody is still writing a partial file


Identity = tuple[str, int, int, int]  # name, inode, size, time: a rewritten file has another identity


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    used: int  # nanoseconds
    identity: Identity


class PrefixStore(SharedResource):
    """Keeps KV caches as files in one folder and removes the least recently used first. Processes may share the folder.

    A file gets its name by a rename when it is complete and synced. If a process dies while writing, it leaves a
    partial file, which nobody reads and a later save removes. A file is read only if its fingerprint is the model's and
    its tokens start the prompt. It is used only if every byte matches its digest. Any failure gives one warning, and
    the request goes on without the file. Only the owner can read a new folder: cache files contain the documents'
    content, and anyone who can write them can change answers.

    Args:
        folder: is created when it is first needed.
        max_bytes: maximum size of all files. "auto" is a quarter of the free space plus the files' own size.

    Raises:
        ConfigurationError: the name is empty, or the limit is not valid.
    """

    def __init__(self, folder: str | Path, max_bytes: int | Literal["auto"] = "auto") -> None:
        if not str(folder):
            raise ConfigurationError("prefix_cache_dir='': give a folder of its own, or None to keep nothing on disk")
        if max_bytes != "auto" and (not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 0):
            raise ConfigurationError(
                f"prefix_cache_dir_bytes={max_bytes!r}: give a number of bytes, or 'auto' for a quarter of what is free"
            )
        self.folder = Path(folder).expanduser()
        self.max_bytes = max_bytes
        self._prefixes: dict[Identity, SavedPrefix | None] = {}  # None: a file that cannot be used
        self._lock = threading.Lock()  # of `_prefixes`
        self._warned: set[str] = set()
        self._writable = True

    def load(
        self, model: str, token_ids: Sequence[int], capacity: int, device: torch.device, more_than: int
    ) -> KVCache | None:
        """Return a cache that holds the first tokens of `token_ids`, at most all but the last, or None.

        A file is read if at least half of it is useful (a short common beginning is prefilled sooner than a long file
        is read), and if it adds `MIN_GAIN_TOKENS` to what the caller has.

        Args:
            model: the model's fingerprint.
            token_ids: the prompt.
            capacity: tokens that must fit.
            device: the device of the cache.
            more_than: tokens of the prompt that the caller has already.
        """
        wanted = np.asarray(token_ids, dtype=np.int64)[:-1]
        try:
            file, shared = self._longest(model, wanted)
            if file is None or shared < more_than + MIN_GAIN_TOKENS:
                return None
        except OSError as error:
            self._warn("read", f"The prefix cache folder {self.folder} cannot be read ({error}); it is not used.")
            return None
        try:
            saved, cache = read_cache(file.path, capacity, shared, device)
            if saved.model != model or common_prefix(saved.token_ids, wanted) < shared:
                raise CacheError(f"{file.path} is about another text than its header said a moment ago")
        except (CacheError, MemoryError, RuntimeError) as error:
            if file.path.exists():  # otherwise another process has just evicted it
                self._disregard(file, error)
            return None
        with suppress(OSError):
            os.utime(file.path)
        return cache

    def holds(self, model: str, token_ids: Sequence[int]) -> int:
        """Return how many of these tokens, from the first one on, `load` would find in a file.

        Raises:
            OSError: the folder cannot be read.
        """
        return self._longest(model, np.asarray(token_ids, dtype=np.int64))[1]

    def save(
        self,
        model: str,
        token_ids: TokenIds,
        cache: KVCache,
        go_on: Callable[[], bool],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Write a file, unless the folder has nearly all of its tokens.

        Room is made first. The file that the new one continues is removed afterwards.

        Args:
            model: the model's fingerprint.
            token_ids: (cache.length,) the tokens of the rows.
            cache: a frozen cache.
            go_on: is asked while writing. If it says no, nothing is left behind.
            labels: what people are told about the file; see `SavedPrefix`.
        """
        if not self._writable:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            known, shared = self._longest(model, token_ids)
            if len(token_ids) - shared < max(MIN_GAIN_TOKENS, len(token_ids) // 10):
                if known is not None:
                    os.utime(known.path)
                return
            size = sum(int(np.prod(shape)) * dtype.itemsize for _, dtype, shape in layout_of(cache))
            if not self._make_room(size):
                return
            self._write(model, token_ids, cache, go_on, labels)
        except FileNotFoundError:  # another process has removed the file that was touched
            return
        except OSError as error:
            self._writable = False
            self._warn(
                "write",
                f"The prefix cache folder {self.folder} cannot be written ({error}); prefixes are not kept on disk "
                "any more. Make room, or give another folder.",
            )

    def _write(
        self,
        model: str,
        token_ids: TokenIds,
        cache: KVCache,
        go_on: Callable[[], bool],
        labels: Mapping[str, str] | None,
    ) -> None:
        handle, name = tempfile.mkstemp(prefix=_PARTIAL, dir=self.folder)
        os.close(handle)
        partial = Path(name)
        try:
            write_cache(partial, cache, token_ids, model, go_on, labels)
            name_of_text = hashlib.sha256(token_ids.tobytes()).hexdigest()[:24]
            path = self.folder / f"{_prefix_of_name(model)}{name_of_text}.safetensors"
            os.replace(partial, path)
        except WriteInterrupted:
            return
        finally:
            partial.unlink(missing_ok=True)
        for file in self._files(model):
            saved = self._prefix(file, model)
            if saved is not None and file.path != path:
                if common_prefix(saved.token_ids, token_ids) == len(saved.token_ids):
                    _removed(file.path)

    def _make_room(self, size: int) -> bool:
        """Remove the least recently used files until `size` more bytes fit. Return False if they never will."""
        self._remove_abandoned()
        files = sorted(self._files(), key=lambda file: file.used)
        with self._lock:
            self._prefixes = {
                file.identity: self._prefixes[file.identity] for file in files if file.identity in self._prefixes
            }
        taken = sum(file.size for file in files)
        limit = self.max_bytes
        if limit == "auto":
            limit = (shutil.disk_usage(self.folder).free + taken) // DISK_SHARE
        if size > limit:
            self._warn(
                "size",
                f"A prefix of {size:,} bytes is not kept in {self.folder}: its limit is {limit:,} bytes "
                "(prefix_cache_dir_bytes).",
            )
            return False
        for file in files:
            if taken + size <= limit:
                break
            taken -= file.size if _removed(file.path) else 0
        return taken + size <= limit

    def _remove_abandoned(self) -> None:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.name.startswith(_PARTIAL) and entry.stat().st_mtime < time.time() - _ABANDONED_S:
                        os.unlink(entry.path)

    def _longest(self, model: str, token_ids: TokenIds) -> tuple[_File | None, int]:
        """Return the file that shares the longest beginning. Files of which less than half is shared do not count."""
        best: tuple[_File | None, int] = (None, 0)
        for file in self._files(model):
            saved = self._prefix(file, model)
            if saved is None:
                continue
            shared = saved.reusable(common_prefix(saved.token_ids, token_ids))
            if shared > best[1] and 2 * shared >= len(saved.token_ids):
                best = (file, shared)
        return best

    def _prefix(self, file: _File, model: str) -> SavedPrefix | None:
        with self._lock:
            if file.identity in self._prefixes:
                return self._prefixes[file.identity]
        try:
            saved = read_prefix(file.path)
            if saved.model != model:
                raise CacheError(f"{file.path} was written by another model than its name says")
        except CacheError as error:
            if file.path.exists():  # otherwise another process has just evicted it
                self._disregard(file, error)
            return None
        with self._lock:
            self._prefixes[file.identity] = saved
        return saved

    def _disregard(self, file: _File, error: Exception) -> None:
        """Ignore this file from now on. A later save may overwrite it, or it is removed when room is needed."""
        with self._lock:
            self._prefixes[file.identity] = None
        self._warn(str(file.identity), f"A saved prefix is ignored: {error}. Delete the file.")

    def _files(self, model: str | None = None) -> Iterator[_File]:
        begin = f"{VERSION}-" if model is None else _prefix_of_name(model)
        try:
            entries = list(os.scandir(self.folder))
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.name.startswith(begin) and entry.name.endswith(".safetensors"):
                try:
                    status = entry.stat()
                except OSError:  # another process has just removed it, or it is a link to nowhere
                    continue
                if stat.S_ISREG(status.st_mode):  # whoever opened a pipe would wait for ever
                    identity = (entry.name, status.st_ino, status.st_size, status.st_mtime_ns)
                    yield _File(Path(entry.path), status.st_size, status.st_mtime_ns, identity)

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(message, RuntimeWarning, stacklevel=4)


def _removed(path: Path) -> bool:
    """Remove a file, and return whether it is gone. Somebody else's, which cannot be removed, stops nothing."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _prefix_of_name(model: str) -> str:
    return f"{VERSION}-{model[:16]}-"
