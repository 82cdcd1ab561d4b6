"""The public interface: read one file, or files and folders, as documents."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from rapid_integrations.documents.document import Document, Documents, NoTextError, ReadLimits, Skipped
from rapid_integrations.documents.isolation import Read, reading
from rapid_integrations.errors import DocumentError, MissingExtraError, PromptError

PathLike: TypeAlias = "str | os.PathLike[str]"

STDIN = "-"
TIME_LIMIT_S = 120.0
_STDIN_NAME = "standard input"
_NAMED_ERRORS = 10
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_UNWANTED = (".", "~$")  # hidden files and folders, and the locks that Word leaves
_GENERATED = ("node_modules", "__pycache__", "site-packages")  # folders in a repository that tools fill


def read_document(
    path: PathLike,
    *,
    encoding: str | None = None,
    limits: ReadLimits | None = None,
    time_limit_s: float | None = TIME_LIMIT_S,
) -> Document:
    """Return a file as text. "-" is standard input.

    The format is detected from the first bytes, so a PDF, Office or HTML file may have any name and come from a pipe.
    The encoding of text and HTML is detected, unless `encoding` names it.

    Args:
        path: the file.
        encoding: encoding of text and HTML files; None detects it.
        limits: limits of reading.
        time_limit_s: seconds that reading may take. Everything but UTF-8 text is read in a separate process, which is
            ended if it takes longer, needs too much memory or crashes. None reads in this process, without a limit.

    Raises:
        DocumentError: the file is missing, a folder, empty, encrypted, damaged, binary, without text, or over a limit.
            The message says which.
        MissingExtraError: the file needs a reader of the extra `documents`.
    """
    name = os.fspath(path)
    with reading(encoding, limits or ReadLimits(), time_limit_s) as read:
        return _read(name, name, limits or ReadLimits(), read)


def read_documents(
    paths: PathLike | Sequence[PathLike],
    *,
    skip_unreadable: bool = False,
    encoding: str | None = None,
    limits: ReadLimits | None = None,
    time_limit_s: float | None = TIME_LIMIT_S,
) -> Documents:
    """Return files and all files of folders as text, in the given order. A folder's files are sorted by name.

    Numbers in names are sorted by value. Hidden files and folders ("." first) and links to folders are skipped. A file
    that is named twice is read once. In folders, files without text (pictures, programs, empty ones) and folders of
    installed packages (node_modules, __pycache__, virtual environments) are left out and named in `Documents.skipped`.

    Args:
        paths: files, folders, or "-" for standard input.
        skip_unreadable: leave out all other files that cannot be read, and name them in `Documents.skipped`.
        encoding: encoding of text and HTML files; None detects it for each.
        limits: limits of reading.
        time_limit_s: seconds for each file, see `read_document`.

    Raises:
        DocumentError: a file cannot be read (the message names all of them); with `skip_unreadable`, no file can be
            read; a folder has no files; or the text exceeds `limits`.
        MissingExtraError: a file needs a reader of the extra `documents`. With `skip_unreadable`, this is raised only
            if no other file could be read.
    """
    limits = limits or ReadLimits()
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise PromptError("no document was given: name files or folders")
    documents: list[Document] = []
    skipped: list[Skipped] = []
    left_out: list[Skipped] = []
    characters = 0
    lacking: MissingExtraError | None = None
    files = list(_files([os.fspath(path) for path in given], limits, left_out))
    with reading(encoding, limits, time_limit_s) as read:
        for path, name, from_folder in files:
            try:
                documents.append(_read(path, name, limits, read))
            except DocumentError as error:
                if len(files) == 1:
                    raise
                without = from_folder and isinstance(error, NoTextError)
                (left_out if without else skipped).append(Skipped(error.source, error.reason))
                continue
            except MissingExtraError as error:
                if not skip_unreadable or len(files) == 1:
                    raise
                lacking = error
                skipped.append(Skipped(name, f"needs pip install 'rapid-integrations[{error.extra}]'"))
                continue
            characters += len(documents[-1].text)
            if characters > limits.characters:
                raise DocumentError(
                    name, f"brings the text to more than {limits.characters:,} characters: give fewer documents"
                )
    if not documents and lacking is not None:
        raise lacking
    if not documents or (skipped and not skip_unreadable):
        raise _unreadable([*skipped, *([] if documents else left_out)], len(files), skip_unreadable)
    return Documents(tuple(documents), (*skipped, *left_out))


def read_utf8(path: PathLike) -> str:
    """Return the text of a data file (such as questions) of any size.

    Raises:
        DocumentError: the file is missing, empty, a folder, or not UTF-8 text.
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _not_opened(name, error) from error
    except UnicodeDecodeError as error:
        raise DocumentError(
            name, f"is not UTF-8 text (byte {error.start:,}): convert it, for instance with iconv -f latin1 -t utf8"
        ) from error
    if not text.strip():
        raise DocumentError(name, "is empty")
    return text


def _read(path: str, name: str, limits: ReadLimits, read: Read) -> Document:
    name = _STDIN_NAME if path == STDIN else name
    data = _bytes(path, name, limits)
    if not data.strip():
        raise NoTextError(name, "is empty: there is nothing to answer from")
    document = read(data, name)
    if not document.text.strip():  # a mark of the byte order alone, other white space than ASCII's
        raise NoTextError(name, "is empty: there is nothing to answer from")
    return document


def _bytes(path: str, name: str, limits: ReadLimits) -> bytes:
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(limits.file_bytes + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(limits.file_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _not_opened(name, error) from error
    if len(data) > limits.file_bytes:
        raise DocumentError(name, f"is larger than {limits.file_bytes:,} bytes: give the part that you ask about")
    return data


def _not_opened(name: str, error: OSError | ValueError) -> DocumentError:
    reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if isinstance(error, FileNotFoundError) and _ADDRESS.match(name):
        reason = "is an address and no file: download it, and give the file"
    elif isinstance(error, FileNotFoundError) and any(sign in name for sign in "*?["):
        reason += ". A shell replaces * and ? if a name matches and they are not in quotation marks"
    return DocumentError(name, reason)


def _files(paths: Iterable[str], limits: ReadLimits, left_out: list[Skipped]) -> Iterator[tuple[str, str, bool]]:
    """Yield (path, name, whether it was found in a folder) of each file, each once."""
    seen: set[str] = set()
    for path in paths:
        within = [path]
        folder = path != STDIN and os.path.isdir(path)
        if folder:
            within = _in_folder(path, limits.files - len(seen), left_out)
            if not within:
                raise DocumentError(path, "is a folder without files")
        for file in within:
            key = file if file == STDIN else os.path.realpath(file)
            if key not in seen:
                seen.add(key)
                yield file, file, folder


def _in_folder(folder: str, most: int, left_out: list[Skipped]) -> list[str]:
    found: list[str] = []

    def refuse(error: OSError) -> None:
        raise _not_opened(str(error.filename or folder), error)

    for place, folders, names in os.walk(folder, onerror=refuse):
        generated = [name for name in folders if _is_generated(os.path.join(place, name))]
        left_out += [
            Skipped(os.path.join(place, name), "is a folder that tools fill: name it to read it")
            for name in sorted(generated)
        ]
        folders[:] = [name for name in folders if not name.startswith(_UNWANTED) and name not in generated]
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and not name.startswith(_UNWANTED):
                found.append(path)
            elif not name.startswith(_UNWANTED):  # reading a pipe or a device could block
                broken = os.path.islink(path)
                left_out.append(Skipped(path, "is a link to no file" if broken else "is a pipe, socket or device"))
        if len(found) > most:
            raise DocumentError(folder, f"holds more than {most:,} files: name the ones that you ask about")
    return sorted(found, key=_natural)


def _is_generated(folder: str) -> bool:
    return os.path.basename(folder) in _GENERATED or os.path.isfile(os.path.join(folder, "pyvenv.cfg"))


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Sort key: "part 2" before "part 10"."""
    parts = re.split(r"(\d+)", path.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _unreadable(skipped: Sequence[Skipped], files: int, skipping: bool) -> DocumentError:
    named = "; ".join(f"{each.source} {each.reason}" for each in skipped[:_NAMED_ERRORS])
    more = f"; and {len(skipped) - _NAMED_ERRORS:,} more" if len(skipped) > _NAMED_ERRORS else ""
    way_out = "" if skipping else ". Leave them out, or skip them with --skip-unreadable (skip_unreadable=True)"
    return DocumentError(f"{len(skipped):,} of {files:,} files", f"cannot be read: {named}{more}{way_out}")
