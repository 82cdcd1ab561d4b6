"""A cache of embeddings by content: each text is embedded once per embedder and process, or only once with a file."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from rapid_integrations.errors import SharedResource

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE embeddings (
    key BLOB PRIMARY KEY, dimension INTEGER NOT NULL, crc INTEGER NOT NULL, vector BLOB NOT NULL
)
"""
_WAIT_S = 10.0  # wait for another process that is writing
_VARIABLES = 500  # keys in one query; SQLite's own limit was 999 for long


class EmbeddingCache(SharedResource):
    """Maps a key to a float32 vector (dimension,): in memory, and in a SQLite file when `path` is given.

    Memory and file each hold at most `max_entries`. Memory drops the least recently used entry, the file the oldest.
    Threads may share the object, and processes may share the file. A file that is damaged, read-only or another
    program's is left alone with one warning, and the cache then works in memory only. A vector on disk with a wrong
    length or checksum counts as absent.
    """

    def __init__(self, path: Path | None = None, max_entries: int = 100_000) -> None:
        self.max_entries = max_entries
        self._path = path
        self._memory: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def key(fingerprint: str, text: str) -> bytes:
        """Return the SHA-256 of an embedder's `fingerprint` and a `text`; lone surrogates in it are allowed."""
        digest = hashlib.sha256(fingerprint.encode())
        digest.update(b"\0")  # a fingerprint is printable, so this separator keeps the pair unambiguous
        digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def get_many(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return the vector (dimension,) of each key, read-only, or None if it is not cached."""
        with self._lock:
            found = {key: self._memory[key] for key in keys if key in self._memory}
            missing = [key for key in dict.fromkeys(keys) if key not in found]
            found |= self._read(missing)
            self._remember(found.items())
        return [found.get(key) for key in keys]

    def put_many(self, keys: Sequence[bytes], vectors: Sequence[np.ndarray] | np.ndarray) -> None:
        """Store `vectors` (n, dimension) under `keys` (n,)."""
        assert len(keys) == len(vectors), f"{len(keys)} keys but {len(vectors)} vectors"
        entries = [(key, _frozen(np.array(vector, dtype="<f4"))) for key, vector in zip(keys, vectors, strict=True)]
        with self._lock:
            self._remember(entries)
            self._write(entries)

    def _remember(self, entries: Iterable[tuple[bytes, np.ndarray]]) -> None:
        for key, vector in entries:
            self._memory[key] = vector
            self._memory.move_to_end(key)
        while len(self._memory) > self.max_entries:
            self._memory.popitem(last=False)

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        found: dict[bytes, np.ndarray] = {}
        if self._path is None or not keys:
            return found
        try:
            with closing(self._connect(self._path)) as database:
                for begin in range(0, len(keys), _VARIABLES):
                    some = keys[begin : begin + _VARIABLES]
                    marks = ",".join("?" * len(some))
                    rows = database.execute(
                        f"SELECT key, dimension, crc, vector FROM embeddings WHERE key IN ({marks})", some
                    )
                    for key, dimension, crc, blob in rows:
                        if len(blob) == 4 * dimension and zlib.crc32(blob) == crc:
                            found[key] = _frozen(np.frombuffer(blob, dtype="<f4"))
        except (sqlite3.Error, OSError) as error:
            self._give_up_on_disk(error)
        return found

    def _write(self, entries: Sequence[tuple[bytes, np.ndarray]]) -> None:
        if self._path is None or not entries:
            return
        blobs = [(key, vector.tobytes()) for key, vector in entries]
        rows = [(key, len(blob) // 4, zlib.crc32(blob), blob) for key, blob in blobs]
        try:
            with closing(self._connect(self._path)) as database, database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)", rows)
                database.execute(  # higher row ids are newer
                    "DELETE FROM embeddings WHERE rowid <= (SELECT max(rowid) FROM embeddings) - ?", (self.max_entries,)
                )
        except (sqlite3.Error, OSError) as error:
            self._give_up_on_disk(error)

    def _connect(self, path: Path) -> sqlite3.Connection:
        """Open the file for one transaction. A connection ends with its call, so threads and forks never share one."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # embeddings reveal the documents' content
        database = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)  # transactions are explicit
        try:
            if _version(database) == 0:
                database.execute("PRAGMA journal_mode=WAL")  # readers and one writer do not wait for each other
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    _create_table(database)
            if (version := _version(database)) != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"it has schema version {version}, this release reads {_SCHEMA_VERSION}")
            database.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            database.close()
            raise
        return database

    def _give_up_on_disk(self, error: Exception) -> None:
        warnings.warn(
            f"The embedding cache {self._path} cannot be used ({error}); embeddings are kept in memory only. "
            "Delete the file, or give a path that can be written.",
            RuntimeWarning,
            stacklevel=4,
        )
        self._path = None


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def _create_table(database: sqlite3.Connection) -> None:
    """Create the table in an empty database, unless another process has just done so."""
    if _version(database) == 0:
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables:
            raise sqlite3.DatabaseError("it is another program's database")
        database.execute(_SCHEMA)
        database.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")


def _frozen(vector: np.ndarray) -> np.ndarray:
    vector.flags.writeable = False  # callers share it
    return vector
