"""Open ZIP archives of XML (Office files, e-books) within limits, without entities or external addresses."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from rapid_integrations.documents.document import ReadLimits
from rapid_integrations.errors import DocumentError, MissingExtraError

_MARKUP = (".xml", ".rels", ".xhtml", ".html", ".htm", ".opf", ".ncx", ".vml")
_FILES = 20_000  # maximum number in one archive


class Packed:
    """An archive whose files are read one by one.

    Raises:
        DocumentError: it is damaged, or its XML would unpack to more than `limits.unpacked_bytes`. The declared sizes
            can be trusted, because zipfile reads no further.
    """

    def __init__(self, data: bytes, source: str, what: str, limits: ReadLimits) -> None:
        self._source, self._what, self._limits = source, what, limits
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
            files = self._archive.infolist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise self.damaged(error) from error
        size = sum(file.file_size for file in files if file.filename.lower().endswith(_MARKUP))
        if size > limits.unpacked_bytes or len(files) > _FILES:
            raise DocumentError(
                source,
                f"unpacks to {size:,} bytes of XML in {len(files):,} files, more than {limits.unpacked_bytes:,} in "
                f"{_FILES:,}: split it, or save it as text",
            )
        self.names = {file.filename.lstrip("/"): file for file in files}

    def damaged(self, error: object) -> DocumentError:
        """Return the error for a damaged file."""
        return DocumentError(
            self._source, f"is a damaged {self._what} file: {str(error) or type(error).__name__}"[:500]
        )

    def read(self, name: str) -> bytes | None:
        """Return a file of the archive, or None if there is no such file."""
        file = self.names.get(name)
        if file is None:
            return None
        if file.file_size > self._limits.unpacked_bytes:
            raise DocumentError(self._source, f"holds {name}, which unpacks to {file.file_size:,} bytes: split it")
        try:
            return self._archive.read(file)
        except Exception as error:  # zipfile and its decompressors raise many types of errors
            raise self.damaged(error) from error

    def tree(self, name: str) -> Any | None:
        """Return the root element of an XML file, or None if there is no such file."""
        data = self.read(name)
        return None if data is None else parsed(data, self)

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """Return the references of an Office file's part: (type, name) by id, without external addresses."""
        folder, file = posixpath.split(name)
        root = self.tree(posixpath.join(folder, "_rels", f"{file}.rels"))
        found = {}
        for each in root if root is not None else ():
            target = unquote(each.get("Target") or "")
            if local(each) == "Relationship" and each.get("TargetMode") != "External" and target:
                path = target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
                found[each.get("Id") or ""] = ((each.get("Type") or "").rsplit("/", 1)[-1], posixpath.normpath(path))
        return found


def parsed(data: bytes, packed: Packed) -> Any:
    """Return the root of XML that declares no entities.

    Raises:
        DocumentError: it is not well formed, or declares entities.
        MissingExtraError: the parser is not installed.
    """
    try:
        from lxml import etree
    except ImportError:
        raise MissingExtraError(feature="Reading Office files", extra="documents") from None
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise packed.damaged(error) from error
    if root.getroottree().docinfo.internalDTD is not None and b"<!ENTITY" in data:
        raise packed.damaged("it declares entities")
    return root


def local(element: Any) -> str:
    """Return an element's name without its namespace, in which strict and usual Office files differ."""
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def value(element: Any, name: str = "val") -> str | None:
    """Return the attribute of that name in any namespace."""
    for key, given in element.attrib.items():
        if key.rsplit("}", 1)[-1] == name:
            return str(given)
    return None


def is_on(element: Any) -> bool:
    """Whether a switch of an Office file is on, which is the default."""
    return (value(element) or "true").lower() in ("1", "true", "on")


def child(element: Any, *path: str) -> Any | None:
    """Return the first descendant on a path of local names."""
    for name in path:
        element = next((each for each in element if local(each) == name), None)
        if element is None:
            return None
    return element


def descendants(element: Any, *names: str) -> Iterator[Any]:
    """Yield all descendants with one of these local names, in document order."""
    for each in element.iter():
        if local(each) in names:
            yield each


def chosen(alternatives: Any) -> Any:
    """Return the form of `mc:AlternateContent` that holds text: the first, or what older programs get."""
    choices = [each for each in alternatives if local(each) in ("Choice", "Fallback")]
    return next((each for each in choices if len(each)), alternatives)
