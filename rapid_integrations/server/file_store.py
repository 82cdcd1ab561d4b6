"""The folder of uploaded documents: each has a folder of its own, named by a random id and never by the client."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from rapid_integrations.documents import Document
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.server.failures import ApiError

_ID = re.compile(r"file-[0-9a-f]{32}")
_NAME_CHARACTERS = 200
_CONTENT, _FACTS, _TEXT = "content", "facts.json", "text.json"


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
        details: what failed.
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
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._files = {file.id: file for file in self._found()}
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot keep the uploaded documents: {error.strerror or error}. Name another folder"
            ) from error

    def __len__(self) -> int:
        return len(self._files)

    def all(self) -> list[StoredFile]:
        """Return all files, the newest first."""
        with self._lock:
            return sorted(self._files.values(), key=lambda file: (-file.created_at, file.id))

    def get(self, file_id: str) -> StoredFile:
        """Return a file.

        Raises:
            ApiError: there is no such file (404).
        """
        with self._lock:
            found = self._files.get(file_id)
        if found is None:
            raise ApiError(404, f"No such File object: {file_id[:64]}", "file_not_found", param="file_id")
        return found

    def add(self, filename: str, purpose: str, content: BinaryIO, size: int) -> StoredFile:
        """Keep an uploaded file.

        Raises:
            ApiError: the store is full (413).
        """
        file = StoredFile(
            f"file-{secrets.token_hex(16)}", _plain_name(filename), purpose[:64] or "assistants", size, int(time.time())
        )
        with self._lock:
            if len(self._files) >= self._most_files:
                raise ApiError(
                    413, f"the server keeps {self._most_files:,} files already: delete some", "too_many_files"
                )
            if sum(each.bytes for each in self._files.values()) + size > self._most_bytes:
                raise ApiError(
                    413,
                    f"the files would be larger than {self._most_bytes:,} bytes together: delete some",
                    "store_full",
                )
            self._files[file.id] = file  # its place is taken before its bytes are written
        try:
            home = self._home(file.id)
            home.mkdir(mode=0o700)
            with open(home / _CONTENT, "xb") as kept:
                shutil.copyfileobj(content, kept)
            self._write(file)
        except BaseException:
            self.remove(file.id)
            raise
        return file

    def change(self, file_id: str, **changes: Any) -> None:
        """Change what is known of a file, unless it has been deleted."""
        with self._lock:
            if (file := self._files.get(file_id)) is None:
                return
            changed = self._files[file_id] = replace(file, **changes)
            if changes.keys() != {"progress"}:
                self._write(changed)

    def remove(self, file_id: str) -> None:
        """Delete a file.

        Raises:
            ApiError: there is no such file (404).
        """
        self.get(file_id)
        with self._lock:
            self._files.pop(file_id, None)
            shutil.rmtree(self._home(file_id), ignore_errors=True)

    def content(self, file_id: str) -> Path:
        """Return the path of a file's bytes as they were uploaded."""
        return self._home(self.get(file_id).id) / _CONTENT

    def keep_text(self, file_id: str, document: Document) -> None:
        """Keep the text of a file, unless it has been deleted."""
        found = {"text": document.text, "format": document.format, "pages": document.pages, "remarks": document.remarks}
        with self._lock:
            if file_id in self._files:
                _write(self._home(file_id) / _TEXT, found)

    def document(self, file_id: str) -> Document:
        """Return the text of a file.

        Raises:
            ApiError: there is no such file (404), or it has no text, or not yet (409).
        """
        file = self.get(file_id)
        if file.status == "error":
            raise ApiError(409, f"{file.filename} could not be read: {file.details}", "file_without_text")
        if file.status != "processed":
            raise ApiError(409, f"{file.filename} is still being read. Ask again later", "file_not_read", retry_s=1)
        found = json.loads((self._home(file.id) / _TEXT).read_text("utf-8"))
        pages = tuple((int(start), int(end)) for start, end in found["pages"])
        return Document(found["text"], file.filename, found["format"], tuple(found["remarks"]), pages)

    def _home(self, file_id: str) -> Path:
        if not _ID.fullmatch(file_id):  # no name of a client becomes a path
            raise ApiError(404, "No such File object", "file_not_found", param="file_id")
        return self._folder / file_id

    def _write(self, file: StoredFile) -> None:
        facts = {name: value for name, value in vars(file).items() if name != "progress"}
        _write(self._home(file.id) / _FACTS, facts)

    def _found(self) -> Iterable[StoredFile]:
        """Yield the files of an earlier run. A folder whose upload did not end is deleted."""
        for home in self._folder.iterdir():
            if not _ID.fullmatch(home.name) or home.is_symlink() or not home.is_dir():
                continue
            try:
                facts = json.loads((home / _FACTS).read_text("utf-8"))
                file = StoredFile(**facts)
            except (OSError, ValueError, TypeError):
                shutil.rmtree(home, ignore_errors=True)
                continue
            if file.id == home.name:
                yield replace(file, read=False)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is there whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(content), "utf-8")
    os.replace(temporary, path)


def _plain_name(name: str) -> str:
    """Return the last part of a name, on one line and without control characters."""
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(each if each.isprintable() else "\ufffd" for each in last).strip()[:_NAME_CHARACTERS]
    return "document" if plain in ("", ".", "..") else plain
