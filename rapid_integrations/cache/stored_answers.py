"""Answers that a datastore has gained: a file beside its index, to which each answer is appended.

The index itself is not touched: other processes have it mapped into memory. Each answer is one write to the end of the
file, with a checksum. Writers take turns by a lock file, because one that mends or shortens the file replaces it, and
would lose what another one appends meanwhile. Readers need no lock. They read what others appended before each request.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import tempfile
import threading
import warnings
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock

from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.cache.suffix_index import SuffixIndex
from rapid_integrations.errors import ConfigurationError, SharedResource

MOST_TOKENS = 1 << 18
"""Tokens of a file. When there are more, the older half of the answers is dropped."""
_UNINDEXED = 2048  # tokens that are searched without an index; one for as many more takes up to 0.15 s
_FORMAT = b"rapid-answers-1\n"
_RECORD = struct.Struct(">II")  # number of tokens, checksum
_BYTES = 4  # of a token
_PATIENCE_S = 0.5  # with a writer of another process; the engine's other requests stand still meanwhile
_NO_FILE = (0, 0)


class StoredAnswers(SharedResource):
    """The answers beside a datastore. Several threads may use it.

    Args:
        datastore: the file of the index; the answers lie in a file of this name with ".answers" behind it.
        vocabulary: digest of the target's vocabulary.
        vocab_size: V; every token must be below it.
        separator: a token behind each answer, behind which nothing is proposed.

    Raises:
        ConfigurationError: the file holds tokens of another vocabulary, is something else, or cannot be read.
    """

    def __init__(self, datastore: Path, vocabulary: str, vocab_size: int, separator: int) -> None:
        self.path = datastore.with_name(f"{datastore.name}.answers")
        self._vocab_size, self._separator = vocab_size, separator
        self._header = _FORMAT + hashlib.sha256(vocabulary.encode()).hexdigest().encode()
        self._lock = threading.Lock()
        self._file = _NO_FILE  # the inode, and how many bytes of it were read
        self._whole = True  # whether all that is in the file could be read
        self._answers: list[list[int]] = []
        self._index: SuffixIndex | None = None
        self._indexed = 0  # answers in the index
        self.texts()

    def texts(self) -> list[SuffixIndex | GrowingText]:
        """Return what can be searched, with the answers that others have added meanwhile."""
        with self._lock:
            self._refresh()
            rest = self._answers[self._indexed :]
            if sum(map(len, rest)) > _UNINDEXED:
                self._index = SuffixIndex.build(np.asarray(_joined(self._answers, self._separator), dtype=np.int64))
                self._indexed, rest = len(self._answers), []
            grown = [GrowingText(_joined(rest, self._separator))] if rest else []
            return [*grown, *([] if self._index is None else [self._index])]

    def add(self, token_ids: Sequence[int]) -> None:
        """Append an answer. A file that cannot be written costs a warning."""
        if not token_ids:
            return
        with self._lock:
            try:
                self._add(token_ids)
            except (OSError, ConfigurationError) as error:
                reason = (isinstance(error, OSError) and error.strerror) or error
                warnings.warn(
                    f"the answer was not added to {self.path} ({reason}): make it writable, or leave out "
                    "datastore_grows",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _add(self, token_ids: Sequence[int]) -> None:
        with FileLock(f"{self.path}.lock", timeout=_PATIENCE_S):
            self._refresh()
            held = sum(map(len, self._answers))
            over = held + len(token_ids) - MOST_TOKENS
            if over > 0 or not self._whole:
                self._rewrite(over + MOST_TOKENS // 2 if over > 0 else 0)
                self._refresh()
            self._append(_record(token_ids))

    def _append(self, record: bytes) -> None:
        """Write an answer behind the others, and the header before it if there was no file."""
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
        if self._file == _NO_FILE:
            flags, record = flags | os.O_CREAT, self._header + record
        handle = os.open(self.path, flags, 0o600)
        try:
            if os.write(handle, record) < len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)

    def _refresh(self) -> None:
        """Read what is new in the file.

        Raises:
            ConfigurationError: it cannot be read, or does not begin as such a file does.
        """
        try:
            with open(self.path, "rb") as file:
                inode, size = os.fstat(file.fileno()).st_ino, os.fstat(file.fileno()).st_size
                known, done = self._file
                if inode != known or not len(self._header) <= done <= size:
                    self._forget()
                    found = file.read(len(self._header))
                    if not self._header.startswith(found):
                        raise ConfigurationError(
                            f"{self.path} holds answers of another vocabulary than the target's, or is another file. "
                            "Move it away, and a new one is begun",
                            code="foreign_datastore",
                        )
                    done = len(found)
                    if found != self._header:  # cut off by a full disk; there are no answers, and the next one mends it
                        self._whole, self._file = False, (inode, done)
                        return
                file.seek(done)
                self._file = inode, done + self._take(file.read())
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be read ({error.strerror}): make it readable, or leave out datastore_grows",
                code="no_datastore",
            ) from error

    def _forget(self) -> None:
        self._answers, self._index, self._indexed, self._whole, self._file = [], None, 0, True, _NO_FILE

    def _take(self, data: bytes) -> int:
        """Add the answers of further bytes, up to what is damaged; return how many bytes they are."""
        at = 0
        while at + _RECORD.size <= len(data):
            count, checksum = _RECORD.unpack_from(data, at)
            tokens = data[at + _RECORD.size : at + _RECORD.size + _BYTES * count]
            answer = [each[0] for each in struct.iter_unpack(">I", tokens)] if len(tokens) == _BYTES * count else []
            if not answer or zlib.crc32(tokens) != checksum or max(answer) >= self._vocab_size:
                break
            self._answers.append(answer)
            at += _RECORD.size + len(tokens)
        self._whole = at == len(data)
        return at

    def _rewrite(self, least: int) -> None:
        """Write the file anew, without what is damaged and without the oldest answers of so many tokens."""
        kept = list(self._answers)
        while kept and least > 0:
            least -= len(kept.pop(0))
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with open(handle, "wb") as file:
                file.write(self._header + b"".join(map(_record, kept)))
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@lru_cache(maxsize=4)
def stored_answers(datastore: Path, vocabulary: str, vocab_size: int, separator: int) -> StoredAnswers:
    """Return the answers beside a datastore, the same object each time; see `StoredAnswers`."""
    return StoredAnswers(datastore, vocabulary, vocab_size, separator)


def _record(token_ids: Sequence[int]) -> bytes:
    tokens = struct.pack(f">{len(token_ids)}I", *token_ids)
    return _RECORD.pack(len(token_ids), zlib.crc32(tokens)) + tokens


def _joined(answers: Sequence[Sequence[int]], separator: int) -> list[int]:
    return [token for answer in answers for token in (*answer, separator)]
