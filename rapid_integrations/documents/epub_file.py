"""EPUB: read the chapters of an e-book in reading order."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from rapid_integrations.documents.declared_encoding import declared_in_html
from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.html_file import html_to_markdown
from rapid_integrations.documents.packed import Packed, descendants, value
from rapid_integrations.documents.text_file import decode
from rapid_integrations.errors import DocumentError

_OBFUSCATED_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


def read_epub(data: bytes, source: str, limits: ReadLimits) -> Document:
    """Return an e-book's text; each file of its spine is a page of the document.

    Raises:
        DocumentError: the file is damaged or protected against copying, or unpacks to more than
            `limits.unpacked_bytes`.
        MissingExtraError: the parser is not installed.
    """
    packed = Packed(data, source, "EPUB", limits)
    encryption = packed.tree("META-INF/encryption.xml")
    if encryption is not None and any(
        value(each, "Algorithm") not in _OBFUSCATED_FONTS for each in descendants(encryption, "EncryptionMethod")
    ):
        raise DocumentError(source, "is protected against copying (DRM): no program but its seller's can read it")
    container = packed.tree("META-INF/container.xml")
    root = next(descendants(container, "rootfile"), None) if container is not None else None
    name = (value(root, "full-path") or "") if root is not None else ""
    book = packed.tree(name)
    if book is None:
        raise packed.damaged("it has no table of its files")
    files = {
        each.get("id"): posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(each.get("href") or "")))
        for each in descendants(book, "item")
    }
    remarks: dict[str, None] = {}
    title = next((each.text or "" for each in descendants(book, "title")), "").strip()
    text, pages = title, []
    for reference in descendants(book, "itemref"):
        chapter = packed.read(files.get(reference.get("idref"), ""))
        if chapter is None:
            remarks["a chapter is missing in the file"] = None
            continue
        page, guessed = decode(chapter, source, declared_in_html(chapter))
        words, left_out = html_to_markdown(page, source)
        remarks.update(dict.fromkeys((*guessed, *left_out)))
        if words.strip():
            text += ("\n\n" if text else "") + words
        pages.append((len(text) - len(words) if words.strip() else len(text), len(text)))
    return Document(text, source, "epub", tuple(remarks), tuple(pages))
