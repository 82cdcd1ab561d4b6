"""What reading gives back, and how much is read at most."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rapid_integrations.errors import DocumentError

Format = Literal["text", "html", "pdf", "docx", "pptx", "xlsx", "odf", "epub", "rtf", "mail", "notebook"]


class NoTextError(DocumentError):
    """A file of a kind that holds no text, or an empty one: an error if it was named, left out of a folder."""


@dataclass(frozen=True)
class Document:
    """A file as text.

    Attributes:
        text: what the models read; never blank.
        source: the file's name as it was given (within a folder: below it), "standard input" for "-".
        format: what the file was.
        remarks: what the reader had to guess or leave out ("pages 3, 4 of 9 without text").
        pages: (start, end) of each page in `text`, in characters; one without text is empty. Slides of a presentation
            and sheets of a workbook are pages, too. () for what has none.
    """

    text: str
    source: str
    format: Format = "text"
    remarks: tuple[str, ...] = ()
    pages: tuple[tuple[int, int], ...] = ()

    def page_at(self, offset: int) -> int | None:
        """Return the number of the page, from 1, that the character at `offset` of the text is on.

        What stands between two pages belongs to the one before; None for a document without pages.
        """
        if not self.pages:
            return None
        starts = [start for start, end in self.pages if end > start]
        numbers = [number for number, (start, end) in enumerate(self.pages, 1) if end > start]
        return numbers[max(0, bisect_right(starts, offset) - 1)] if numbers else None


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read and was left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Documents:
    """Several documents, in the order in which they were named; iterates over them.

    Attributes:
        documents: those that were read, at least one.
        skipped: those that were not: files of folders that hold no text (pictures, programs, empty ones), folders
            of installed packages, and, if that was asked for, whatever cannot be read.
    """

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...] = ()

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each document: its file name, with as many folders before it as tell it from the others."""
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
    """How much is read at most. They bound what a damaged or hostile file can cost, and are far above what a model's
    context window holds.

    Attributes:
        file_bytes: of one file.
        unpacked_bytes: of the XML in one Office file or e-book (its reader takes up to 36 times as much memory).
        characters: of text in all documents together.
        files: in all folders together, subfolders included.
        memory_bytes: of the process that reads a file (where the system can bound it).
    """

    file_bytes: int = 256 * 2**20
    unpacked_bytes: int = 32 * 2**20
    characters: int = 20_000_000
    files: int = 10_000
    memory_bytes: int = 4 * 2**30


def _printable(name: str) -> str:
    """Return `name` on one line: file names may hold line breaks and control characters, and models read them."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name)
