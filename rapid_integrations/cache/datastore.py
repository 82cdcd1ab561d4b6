"""A suffix index of a user's own texts in a file that processes share: they map it into memory and copy nothing.

The file has the layout of safetensors: a header in JSON, the order of the places, and the tokens behind it. A digest
over everything is checked when a process first opens it. Nothing in it is code.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rapid_integrations.cache.suffix_index import SuffixIndex
from rapid_integrations.errors import ConfigurationError

_FORMAT = "rapid-integrations datastore 1"
_NO_DIGEST = "0" * 64
_LONGEST_HEADER = 65_536  # bytes
_PIECE = 1 << 24  # bytes that are digested at once


def write_datastore(path: Path, texts: Iterable[Sequence[int]], separator: int, vocabulary: str) -> int:
    """Index texts, write the file in one step, and return the number of tokens.

    Args:
        path: the file; an older one is replaced.
        texts: tokens of each text.
        separator: a token between them, behind which nothing is proposed (an end-of-sequence token).
        vocabulary: `Vocabulary.digest`.

    Raises:
        ConfigurationError: there are no tokens.
        OSError: the file cannot be written.
    """
    token_ids = [token for text in texts for token in (*text, separator)]
    if len(token_ids) < 2:
        raise ConfigurationError(
            f"no text to index for {path}: the files are empty. Give files with text", code="empty_datastore"
        )
    tokens, order = SuffixIndex.build(token_ids).buffers()
    digest = hashlib.sha256(_header(len(token_ids), vocabulary, _NO_DIGEST))
    for part in (order, tokens):
        digest.update(part)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            for part in (_header(len(token_ids), vocabulary, digest.hexdigest()), order, tokens):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return len(token_ids)


def open_datastore(path: Path, vocabulary: str, vocab_size: int) -> SuffixIndex:
    """Return the index in a file. It is checked once, and again if the file has changed.

    Args:
        path: the file.
        vocabulary: digest of the target's vocabulary.
        vocab_size: V; every token must be below it.

    Raises:
        ConfigurationError: the file is missing, is no datastore, is damaged, or has another vocabulary's tokens.
    """
    try:
        found = path.stat()
        index, theirs, highest = _opened(path, found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise ConfigurationError(
            f"datastore={str(path)!r} cannot be read ({error.strerror}): make it with rapid datastore build FILES -o "
            f"{path}",
            code="no_datastore",
        ) from None
    if theirs != vocabulary or highest >= vocab_size:
        raise ConfigurationError(
            f"datastore={str(path)!r} holds the tokens of another vocabulary than the target's. Build it again with "
            "--target set to this target",
            code="foreign_datastore",
        )
    return index


@lru_cache(maxsize=4)
def _opened(path: Path, inode: int, size: int, modified: int) -> tuple[SuffixIndex, str, int]:
    """Return a checked file's index, the digest of its vocabulary and its highest token."""
    with open(path, "rb") as file:
        if size < 8:
            raise _damaged(path)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (length,) = struct.unpack("<Q", mapped[:8])
    if length > _LONGEST_HEADER:
        raise _damaged(path)
    try:
        header: dict[str, Any] = json.loads(mapped[8 : 8 + length])
        told = header["__metadata__"]
        count, vocabulary, wanted = int(told["tokens"]), str(told["vocabulary"]), str(told["digest"])
        expected = _header(count, vocabulary, wanted)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(path) from None
    start = len(expected)
    if mapped[:start] != expected or size != start + 4 * (count - 1) + 4 * count or count < 2:
        raise _damaged(path)
    digest = hashlib.sha256(_header(count, vocabulary, _NO_DIGEST))
    for at in range(start, size, _PIECE):
        digest.update(mapped[at : min(at + _PIECE, size)])
    first = start + 4 * (count - 1)
    order = memoryview(mapped)[start:first].cast("I")
    # A digest protects from damage, and the numbers below from a file that was made to do harm.
    highest = int(np.frombuffer(mapped, dtype=">u4", offset=first).max())
    places = np.frombuffer(order, dtype=np.uint32)
    if digest.hexdigest() != wanted or int(places.max()) >= count or int(places.min()) < 1:
        raise _damaged(path)
    return SuffixIndex(mapped, order, first), vocabulary, highest


def _header(tokens: int, vocabulary: str, digest: str) -> bytes:
    """Return the beginning of the file, a multiple of eight bytes."""
    places = 4 * (tokens - 1)
    header = {
        "__metadata__": {"format": _FORMAT, "tokens": str(tokens), "vocabulary": vocabulary, "digest": digest},
        "order": {"dtype": "U32", "shape": [tokens - 1], "data_offsets": [0, places]},
        "tokens": {"dtype": "U8", "shape": [4 * tokens], "data_offsets": [places, places + 4 * tokens]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _damaged(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"datastore={str(path)!r} is damaged, or is no datastore. Make it again with rapid datastore build FILES -o "
        f"{path}",
        code="damaged_datastore",
    )
