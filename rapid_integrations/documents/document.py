"""The results of reading files, and its limits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rapid_integrations.errors import DocumentError

Format = Literal["text", "html", "pdf", "docx", "pptx", "xlsx", "odf", "epub", "rtf", "mail", "notebook"]


class NoTextError(DocumentError):
    """A file without text, or an empty one. It is an error if it was named, and is left out of a folder."""


@dataclass(frozen=True)
class Document:
    """A file as text.

    Attributes:
        text: the text for the models. It is never blank.
        source: the file's name as given (relative to its folder's parent), or "standard input" for "-".
        format: the file's format.
        remarks: guesses and omissions of the reader ("pages 3, 4 of 9 without text").
        pages: (start, end) of each page in `text`, in characters. A page without text is empty. Slides and sheets are
            pages, too. It is () for formats without pages.
    """

    text: str
    source: str
    format: Format = "text"
    remarks: tuple[str, ...] = ()
    pages: tuple[tuple[int, int], ...] = ()

    def page_at(self, offset: int) -> int | None:
        """Return the page number, from 1, of the character at `offset` of the text.

        Text between two pages belongs to the page before it. The result is None for a document without pages.
        """
        if not self.pages:
            return None
        starts = [start for start, end in self.pages if end > start]
        numbers = [number for number, (start, end) in enumerate(self.pages, 1) if end > start]
        return numbers[max(0, bisect_right(starts, offset) - 1)] if numbers else None


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read and was left out, with the reason."""

    source: str
    reason: str


@dataclass(frozen=True)
class Documents:
    """Several documents in the order in which they were named. It iterates over them.

    Attributes:
        documents: the documents that were read, at least one.
        skipped: the files that were left out: files without text in folders (pictures, programs, empty ones), folders
            of installed packages, and, with `skip_unreadable`, all files that cannot be read.
    """

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...] = ()

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each document: its file name, with as many folders as are needed to make it unique."""
        paths = [[part for part in document.source.replace("\\", "/").split("/") if part] for document in self]
        names = []
        for path in paths:
            for length in range(1, len(path) + 1):
                if sum(other[-length:] == path[-length:] for other in paths) == 1:
                    break
            names.append(_printable("/".join(path[-length:])))
        return tuple(names)


@dataclass(frozen=True)
class ReadLimits:
    """Limits of reading. They bound the cost of a damaged or hostile file, and are far above a model's context window.

    Attributes:
        file_bytes: maximum size of one file.
        unpacked_bytes: maximum size of the XML in one Office file or e-book (its reader takes up to 36 times as much
            memory).
        characters: maximum length of the text of all documents together.
        files: maximum number of files in all folders together, including subfolders.
        memory_bytes: maximum memory of the process that reads a file (if the system can limit it).
    """

    file_bytes: int = 256 * 2**20
    unpacked_bytes: int = 32 * 2**20
    characters: int = 20_000_000
    files: int = 10_000
    memory_bytes: int = 4 * 2**30


def _printable(name: str) -> str:
    """Return `name` on one line. File names may hold line breaks and control characters, and models read them."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name)
