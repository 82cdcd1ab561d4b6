"""The folder of uploaded documents: each has a folder of its own, named by a random id and never by the client.

Several servers may share a folder. What is on disk is the truth: each call looks whether another server changed it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from rapid_integrations.documents import Document
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.server.failures import ApiError

_ID = re.compile(r"file-[0-9a-f]{32}")
_ARRIVING = re.compile(r"\.arriving-[0-9a-f]{32}")
_NAME_CHARACTERS = 200
_CONTENT, _FACTS, _TEXT = "content", "facts.json", "text.json"
_ABANDONED_S = 3600.0  # an upload that is not complete after so long belongs to a server that has ended
_SILENT_S = 300.0  # a reading that has reported nothing for so long belongs to a server that has ended
_REPORT_S = 0.5  # least time between two reports of progress on disk

_Stamp = tuple[int, int]


def new_file_id() -> str:
    """Return an id that no file has."""
    return f"file-{secrets.token_hex(16)}"


@dataclass(frozen=True)
class StoredFile:
    """What is known of an uploaded file.

    Attributes:
        id: "file-" and 32 hexadecimal digits.
        filename: the client's name for it, without folders and control characters.
        purpose: what the client said that it is for.
        bytes: its size.
        created_at: Unix time in seconds.
        status: "uploaded", "processed" (its text is there) or "error".
        details: what failed, as a sentence.
        tokens: number of tokens of its text.
        pages: number of its pages; None for formats without pages.
        read: whether the engine has read the text ahead.
        progress: stage, done and total of its reading; None while nothing happens.
    """

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    status: str = "uploaded"
    details: str | None = None
    tokens: int | None = None
    pages: int | None = None
    read: bool = False
    progress: tuple[str, int, int] | None = None

    @property
    def json(self) -> dict[str, Any]:
        """The file as OpenAI's API shows it."""
        stage = None if self.progress is None else dict(zip(("stage", "done", "total"), self.progress, strict=True))
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": self.status,
            "status_details": self.details,
            "rapid": {"tokens": self.tokens, "pages": self.pages, "read": self.read, "progress": stage},
        }


class FileStore:
    """Keeps uploaded files and their texts. Its methods block; call them in a thread if they read or write contents.

    Args:
        folder: where they are; it is made if it does not exist, readable by its owner only.
        most_files, most_bytes: limits of everything that is kept.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, folder: Path, most_files: int, most_bytes: int) -> None:
        self._folder, self._most_files, self._most_bytes = folder, most_files, most_bytes
        self._lock = threading.RLock()
        self._files: dict[str, StoredFile] = {}
        self._stamps: dict[str, _Stamp] = {}  # of the facts on disk that `_files` has
        self._reported: dict[str, float] = {}  # when the progress of a file was last written
        self._arriving: dict[str, int] = {}  # sizes of the files that are being written
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._remove_abandoned()
            self._look()
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot keep the uploaded documents: {error.strerror or error}. Name another folder"
            ) from error

    def __len__(self) -> int:
        return len(self.all())

    def all(self) -> list[StoredFile]:
        """Return all files, the newest first."""
        with self._lock:
            self._look()
            return sorted(self._files.values(), key=lambda file: (-file.created_at, file.id))

    def get(self, file_id: str) -> StoredFile:
        """Return a file.

        Raises:
            ApiError: there is no such file (404).
        """
        with self._lock:
            found = self._seen(file_id) if _ID.fullmatch(file_id) else None
        if found is None:
            raise ApiError(404, f"No such File object: {file_id[:64]}", "file_not_found", param="file_id")
        return found

    def add(self, filename: str, purpose: str, content: BinaryIO, size: int, file_id: str | None = None) -> StoredFile:
        """Keep an uploaded file.

        Args:
            filename, purpose: the client's.
            content: its bytes.
            size: number of its bytes.
            file_id: an id of `new_file_id`; None makes one.

        Raises:
            ApiError: the store is full (413).
        """
        file = StoredFile(
            file_id or new_file_id(), plain_name(filename), purpose[:64] or "assistants", size, int(time.time())
        )
        with self._lock:
            kept = [each.bytes for each in self.all() if each.id != file.id] + list(self._arriving.values())
            if len(kept) >= self._most_files:
                raise ApiError(
                    413, f"the server keeps {self._most_files:,} files already: delete some", "too_many_files"
                )
            if sum(kept) + size > self._most_bytes:
                raise ApiError(
                    413,
                    f"the files would be larger than {self._most_bytes:,} bytes together: delete some",
                    "store_full",
                )
            self._arriving[file.id] = size  # its place is taken before its bytes are written
        arriving = self._folder / f".arriving-{secrets.token_hex(16)}"
        try:
            arriving.mkdir(mode=0o700)
            with open(arriving / _CONTENT, "xb") as written:
                shutil.copyfileobj(content, written)
            _write(arriving / _FACTS, _facts(file))
            with self._lock:
                shutil.rmtree(self._home(file.id), ignore_errors=True)  # of an upload that is repeated
                os.rename(arriving, self._home(file.id))  # other servers see it whole or not at all
                self._seen(file.id)
        finally:
            self._arriving.pop(file.id, None)
            shutil.rmtree(arriving, ignore_errors=True)
        return file

    def change(self, file_id: str, **changes: Any) -> None:
        """Change what is known of a file, unless it has been deleted."""
        with self._lock:
            if (file := self._seen(file_id)) is None:
                return
            self._files[file_id] = changed = replace(file, **changes)
            now = time.monotonic()
            if changes.get("progress") is None:
                self._reported.pop(file_id, None)
            elif now < self._reported.get(file_id, 0.0) + _REPORT_S:
                return
            else:
                self._reported[file_id] = now
            try:
                _write(self._home(file_id) / _FACTS, _facts(changed))
                self._stamps[file_id] = _stamp(self._home(file_id))
            except FileNotFoundError:  # another server has deleted it at this moment
                self._forget(file_id)

    def remove(self, file_id: str) -> None:
        """Delete a file.

        Raises:
            ApiError: there is no such file (404).
        """
        self.get(file_id)
        with self._lock:
            self._forget(file_id)
            shutil.rmtree(self._home(file_id), ignore_errors=True)

    def content(self, file_id: str) -> Path:
        """Return the path of a file's bytes as they were uploaded."""
        return self._home(self.get(file_id).id) / _CONTENT

    def keep_text(self, file_id: str, document: Document) -> None:
        """Keep the text of a file, unless it has been deleted."""
        found = {"text": document.text, "format": document.format, "pages": document.pages, "remarks": document.remarks}
        with self._lock:
            if self._seen(file_id) is not None:
                _write(self._home(file_id) / _TEXT, found)

    def has_text(self, file_id: str) -> bool:
        """Return whether the text of a file is kept."""
        return (self._home(file_id) / _TEXT).exists()

    def document(self, file_id: str) -> Document:
        """Return the text of a file.

        Raises:
            ApiError: there is no such file (404), or it has no text, or not yet (409).
        """
        file = self.get(file_id)
        if file.status == "error":
            raise ApiError(409, f"{file.filename} could not be read. {file.details}", "file_without_text")
        if file.status != "processed":
            raise ApiError(409, f"{file.filename} is still being read. Ask again later", "file_not_read", retry_s=1)
        found = json.loads((self._home(file.id) / _TEXT).read_text("utf-8"))
        pages = tuple((int(start), int(end)) for start, end in found["pages"])
        return Document(found["text"], file.filename, found["format"], tuple(found["remarks"]), pages)

    def _home(self, file_id: str) -> Path:
        if not _ID.fullmatch(file_id):  # no name of a client becomes a path
            raise ApiError(404, "No such File object", "file_not_found", param="file_id")
        return self._folder / file_id

    def _look(self) -> None:
        """Find what other servers have added, changed or deleted."""
        there = {name for name in os.listdir(self._folder) if _ID.fullmatch(name)}
        for file_id in there | set(self._files):
            self._seen(file_id)

    def _seen(self, file_id: str) -> StoredFile | None:
        """Return a file as the disk has it now, None if there is none."""
        home = self._home(file_id)
        try:
            stamp = _stamp(home)
            if stamp != self._stamps.get(file_id):
                self._files[file_id] = _read(home, stamp)
                self._stamps[file_id] = stamp
        except (OSError, ValueError, TypeError):
            self._forget(file_id)
        return self._files.get(file_id)

    def _forget(self, file_id: str) -> None:
        for known in (self._files, self._stamps, self._reported):
            known.pop(file_id, None)

    def _remove_abandoned(self) -> None:
        """Delete what uploads left whose server ended before them, and files that nobody can read."""
        for path in self._folder.iterdir():
            if _ARRIVING.fullmatch(path.name):
                left = time.time() - path.lstat().st_mtime > _ABANDONED_S
            else:
                left = _ID.fullmatch(path.name) is not None and not path.is_symlink() and self._seen(path.name) is None
            if left:
                shutil.rmtree(path, ignore_errors=True)


def _stamp(home: Path) -> _Stamp:
    if home.is_symlink():
        raise NotADirectoryError(home)
    found = (home / _FACTS).stat()
    return found.st_mtime_ns, found.st_ino  # every change is a new file


def _read(home: Path, stamp: _Stamp) -> StoredFile:
    file = StoredFile(**json.loads((home / _FACTS).read_text("utf-8")))
    if file.id != home.name:
        raise ValueError(file.id)
    silent = time.time() - stamp[0] / 1e9 > _SILENT_S
    stage, done, total = file.progress or ("", 0, 0)
    return replace(file, progress=None if silent or not stage else (stage, done, total))


def _facts(file: StoredFile) -> dict[str, Any]:
    return dict(vars(file))


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is there whole or not at all."""
    temporary = path.with_suffix(f".{secrets.token_hex(8)}.new")  # another server may write at the same time
    try:
        temporary.write_text(json.dumps(content), "utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def plain_name(name: str) -> str:
    """Return the last part of a name, on one line and without control characters."""
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(each if each.isprintable() else "\ufffd" for each in last).strip()[:_NAME_CHARACTERS]
    return "document" if plain in ("", ".", "..") else plain
