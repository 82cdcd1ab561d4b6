"""PDF to text: the text layer, page by page."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.errors import DocumentError, MissingExtraError

_NAMED_PAGES = 8
# Typeset words hold one glyph for "ffi"; tokenizers and searches know the letters only.
_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)


def read_pdf(data: bytes, source: str, limits: ReadLimits) -> Document:
    """Return the text layer of a PDF, pages set apart by blank lines.

    Files that are encrypted, but open without a password, are read.

    Raises:
        DocumentError: encrypted with a password, damaged, without a text layer, or longer than `limits` allow.
        MissingExtraError: the reader is not installed.
    """
    try:
        import pypdf
        from pypdf.errors import DependencyError
    except ImportError:
        raise MissingExtraError(feature=f"Reading {source}", extra="documents") from None
    try:
        with _quiet():
            reader = pypdf.PdfReader(io.BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise DocumentError(source, "is encrypted: save a copy without the password")
            pages = _texts(reader, source, limits)
    except DocumentError:
        raise
    except DependencyError:  # a cipher of the package that the extra brings
        raise MissingExtraError(feature=f"Decrypting {source}", extra="documents") from None
    except RecursionError as error:
        raise DocumentError(source, "is a damaged PDF file: its objects refer to each other in a circle") from error
    except Exception as error:  # whatever the reader raises for a damaged file
        raise DocumentError(source, f"is a damaged PDF file: {error or type(error).__name__}") from error
    without = [number for number, text in enumerate(pages, 1) if not text]
    if len(without) == len(pages):
        raise DocumentError(
            source,
            f"has no text layer ({len(pages):,} pages, all of them pictures): run text recognition first, for instance "
            "with ocrmypdf",
        )
    remarks = (f"{_listed(without)} of {len(pages):,} without text (pictures?)",) if without else ()
    return Document("\n\n".join(text for text in pages if text), source, "pdf", remarks)


def _texts(reader: object, source: str, limits: ReadLimits) -> list[str]:
    texts: list[str] = []
    characters = 0
    for page in reader.pages:  # type: ignore[attr-defined]
        texts.append(_whole_characters(page.extract_text()).strip())
        characters += len(texts[-1])
        if characters > limits.characters:
            raise DocumentError(
                source, f"holds more than {limits.characters:,} characters: give the part that you ask about"
            )
    if not texts:
        raise DocumentError(source, "is a PDF file without pages")
    return texts


def _whole_characters(text: str) -> str:
    """Join surrogate pairs, which some PDFs' character tables give apart, spell out ligatures, and drop NUL."""
    text = text.replace("\0", "").translate(_LIGATURES)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _listed(numbers: Sequence[int]) -> str:
    first = ", ".join(str(number) for number in numbers[:_NAMED_PAGES])
    more = len(numbers) - _NAMED_PAGES
    return f"page{'s' * (len(numbers) > 1)} {first}" + (f" and {more:,} more" if more > 0 else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the reader's warnings about sloppy files to itself: it repairs what it warns of, or raises."""
    logger = logging.getLogger("pypdf")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
