"""DOCX to Markdown: paragraphs, headings, lists, tables, footnotes and text boxes; accepted as if all changes were."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.html_file import html_to_markdown
from rapid_integrations.errors import DocumentError, MissingExtraError


def read_docx(data: bytes, source: str, limits: ReadLimits) -> Document:
    """Return the text of a Word file's body. Page headers and footers, comments and pictures are left out.

    Raises:
        DocumentError: the file is damaged, or unpacks to more than `limits.unpacked_bytes`.
        MissingExtraError: the reader is not installed.
    """
    try:
        import mammoth  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError(feature=f"Reading {source}", extra="documents") from None
    _require_bounded(data, source, limits)
    try:
        html = mammoth.convert_to_html(io.BytesIO(data), convert_image=_no_image, include_default_style_map=True).value
    except Exception as error:  # whatever zipfile, the XML parser and mammoth raise for a damaged file
        raise DocumentError(source, f"is a damaged DOCX file: {error or type(error).__name__}") from error
    return Document(html_to_markdown(html, source), source, "docx")


def _require_bounded(data: bytes, source: str, limits: ReadLimits) -> None:
    """Refuse what would unpack to too much. The declared sizes hold: zipfile reads no further than them."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            size = sum(info.file_size for info in packed.infolist() if info.filename.endswith((".xml", ".rels")))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DocumentError(source, f"is a damaged DOCX file: {error}") from error
    if size > limits.unpacked_bytes:
        raise DocumentError(
            source,
            f"unpacks to {size:,} bytes of XML, more than {limits.unpacked_bytes:,}: split it, or save it as text",
        )


def _no_image(image: Any) -> list[Any]:
    return []
