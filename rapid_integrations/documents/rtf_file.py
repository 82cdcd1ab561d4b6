"""RTF: the text without its layout."""

from __future__ import annotations

from rapid_integrations.documents.document import Document
from rapid_integrations.errors import DocumentError, MissingExtraError


def read_rtf(data: bytes, source: str) -> Document:
    """Return the text of an RTF file; cells of tables are set apart by `|`, pictures are left out.

    Raises:
        DocumentError: the file is damaged.
        MissingExtraError: the reader is not installed.
    """
    try:
        from striprtf.striprtf import rtf_to_text
    except ImportError:
        raise MissingExtraError(feature=f"Reading {source}", extra="documents") from None
    try:
        text = str(rtf_to_text(data.decode("cp1252", "replace"), errors="replace"))
    except Exception as error:  # whatever it raises for a damaged file
        raise DocumentError(source, f"is a damaged RTF file: {error or type(error).__name__}") from error
    pictures = data.count(b"\\pict")
    remarks = (f"{pictures:,} picture{'s' * (pictures > 1)} left out",) if pictures else ()
    return Document(text.replace("\0", "").strip(), source, "rtf", remarks)
