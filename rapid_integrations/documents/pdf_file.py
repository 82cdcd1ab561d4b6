"""Read PDFs: the text layer, the values of form fields and the comments, page by page."""

from __future__ import annotations

import ctypes
import logging
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.pdf_characters import Box
from rapid_integrations.documents.pdf_fonts import install
from rapid_integrations.documents.pdf_forms import comments, take_fields, xfa_packets
from rapid_integrations.documents.pdf_meaning import meaning
from rapid_integrations.documents.pdf_text import PageText
from rapid_integrations.documents.xfa_form import filled_in
from rapid_integrations.errors import DocumentError, MissingExtraError

_NAMED_PAGES = 8
_MOSTLY = 0.3  # share of characters without a meaning that makes a page undecodable
_SPACELESS = 45  # letters of an alphabet without a space that mean that spaces are missing
_ALONE = threading.Lock()  # PDFium holds state that is not safe among threads
_OCR = "run text recognition, for instance with ocrmypdf"
_CHARACTERS_PER_OBJECT = 3  # if there are fewer, the page's text objects are examined one by one


@dataclass(frozen=True)
class _Page:
    text: str
    without: str = ""  # why there is no text
    trouble: str = ""  # what is wrong with it
    lost: int = 0  # characters without a meaning on a page that can be read otherwise


def read_pdf(data: bytes, source: str, limits: ReadLimits) -> Document:
    """Return the text of a PDF, with blank lines between pages.

    Encrypted files that open without a password are read. A remark names pages that cannot be read.

    Raises:
        DocumentError: the file is encrypted with a password, damaged, without a text layer, or longer than `limits`
            allow.
        MissingExtraError: the reader is not installed.
    """
    try:
        import pypdfium2
    except ImportError:
        raise MissingExtraError(feature=f"Reading {source}", extra="documents") from None
    logging.getLogger("pypdfium2").setLevel(logging.CRITICAL)  # it repairs the faults that it warns of, or raises
    with _ALONE:
        install()
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            raise _not_opened(error, source) from error
        try:
            return _document(document, source, limits)
        finally:
            document.close()


def _not_opened(error: Exception, source: str) -> DocumentError:
    import pypdfium2.raw as pdfium

    match getattr(error, "err_code", None):
        case pdfium.FPDF_ERR_PASSWORD:
            return DocumentError(source, "is encrypted with a password: save a copy without it")
        case pdfium.FPDF_ERR_SECURITY:
            return DocumentError(source, "is encrypted in a way that is not supported: save a copy without encryption")
    return DocumentError(source, "is a damaged PDF file: no page of it can be found")


def _document(document: Any, source: str, limits: ReadLimits) -> Document:
    if not len(document):
        raise DocumentError(source, "is a PDF file without pages")
    if document.get_formtype():
        document.init_forms()
    pages: list[_Page] = []
    characters = 0
    for number in range(len(document)):
        pages.append(_page(document, number))
        characters += len(pages[-1].text)
        if characters > limits.characters:
            raise DocumentError(
                source, f"holds more than {limits.characters:,} characters: give the part that you ask about"
            )
    form = filled_in(xfa_packets(document))
    if not form.text and not any(page.text for page in pages):
        raise _without_text(pages, source)
    text, spans = "", []
    for page in pages:
        start = len(text) + 2 * bool(text and page.text)
        text += f"{chr(10) * 2 if text and page.text else ''}{page.text}"
        spans.append((min(start, len(text)), len(text)))
    if form.text:
        text += f"\n\n{form.text}" if text else form.text
    return Document(text, source, "pdf", (*_remarks(pages), *form.remarks, *_attached(document)), tuple(spans))


def _page(document: Any, number: int) -> _Page:
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        page = document[number]
        fields = take_fields(document, page)
        notes = comments(page)
        textpage = page.get_textpage()
        read = PageText(textpage)
        drawn = ""
        if pdfium.FPDFPage_GetAnnotCount(page.raw):
            page, textpage, read, drawn = _with_annotations(document, number, page, textpage, read)
        text = read.text(fields) + drawn
        words = "".join(text.split())
        text += "".join(f"\n[Comment: {note}]" for note in dict.fromkeys(notes) if "".join(note.split()) not in words)
        result = _Page(text.strip(), *_what_is_wrong(page, textpage, read, text))
        textpage.close()
        page.close()
        return result
    except pypdfium2.PdfiumError:
        return _Page("", trouble="damaged")


def _with_annotations(
    document: Any, number: int, page: Any, textpage: Any, read: PageText
) -> tuple[Any, Any, PageText, str]:
    """Make what annotations draw (stamps, callouts, signatures) part of the page, and so of its text.

    Returns the page, its text page, its text, and what the annotations draw if that would part words of the page.
    """
    import pypdfium2.raw as pdfium

    objects = pdfium.FPDFPage_CountObjects(page.raw)
    if pdfium.FPDFPage_Flatten(page.raw, pdfium.FLAT_NORMALDISPLAY) != pdfium.FLATTEN_SUCCESS:
        return page, textpage, read, ""
    flat = document[number]
    flat_text = flat.get_textpage()
    flat_read = PageText(flat_text)
    if not read.loses_by(flat_read):  # else the page's fonts did not outlive it
        if not read.words() - flat_read.words():
            textpage.close()
            page.close()
            return flat, flat_text, flat_read, ""
        drawn = _last_objects(flat, objects)
    else:
        drawn = ""
    flat_text.close()
    flat.close()
    return page, textpage, read, drawn


def _last_objects(page: Any, first: int) -> str:
    """Return the text of a page's objects from number `first` on, as lines of their own; the others leave the page."""
    import pypdfium2.raw as pdfium

    for _ in range(min(first, pdfium.FPDFPage_CountObjects(page.raw))):
        each = pdfium.FPDFPage_GetObject(page.raw, 0)
        if pdfium.FPDFPage_RemoveObject(page.raw, each):
            pdfium.FPDFPageObj_Destroy(each)
    textpage = page.get_textpage()
    text = PageText(textpage).text()
    textpage.close()
    return f"\n{text}" if text else ""


def _what_is_wrong(page: Any, textpage: Any, read: PageText, text: str) -> tuple[str, str, int]:
    """Return why the page has no text, what is wrong with the text that it has, and how many characters lack."""
    import pypdfium2.raw as pdfium

    objects = pdfium.FPDFPage_CountObjects(page.raw)
    if not text.strip():
        return _drawn(page, objects), "", 0
    means = meaning(read.page)
    if means.undecodable or (
        len(read.page) < _CHARACTERS_PER_OBJECT * objects and _dropped(page, textpage, objects) > _MOSTLY
    ):
        return "", "undecodable", 0
    longest = max((len(word) for word in text.split() if word.isalpha() and word.isascii()), default=0)
    return "", "spaceless" if longest > _SPACELESS else "", means.lost


def _drawn(page: Any, objects: int) -> str:
    import pypdfium2.raw as pdfium

    kinds = {
        pdfium.FPDFPageObj_GetType(pdfium.FPDFPage_GetObject(page.raw, index)) for index in range(min(objects, 10_000))
    }
    if pdfium.FPDF_PAGEOBJ_IMAGE in kinds:
        return "pictures"
    return "drawings" if kinds else "blank"


def _dropped(page: Any, textpage: Any, objects: int) -> float:
    """Return the share of the page's text objects that gave no text: their characters have no Unicode meaning.

    PDFium also drops what is drawn a second time at the same place; that is not counted.
    """
    import pypdfium2.raw as pdfium

    there = 0
    empty: list[Box] = []
    full: list[Box] = []
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    for index in range(min(objects, 10_000)):
        each = pdfium.FPDFPage_GetObject(page.raw, index)
        if pdfium.FPDFPageObj_GetType(each) == pdfium.FPDF_PAGEOBJ_TEXT:
            there += 1
            pdfium.FPDFPageObj_GetBounds(each, left, bottom, right, top)
            box = (left.value, bottom.value, right.value, top.value)
            (empty if pdfium.FPDFTextObj_GetText(each, textpage.raw, None, 0) <= 2 else full).append(box)
    full.sort()
    return sum(not _is_covered(box, full) for box in empty) / there if there else 0.0


def _is_covered(box: Box, others: Sequence[Box]) -> bool:
    """Whether a box is empty, or much the same as one of `others`, which are sorted."""
    left, bottom, right, top = box
    if right <= left or top <= bottom:
        return True
    near = (top - bottom) / 4
    first, last = bisect_left(others, (left - near,)), bisect_right(others, (left + near,))
    return any(
        abs(each[1] - bottom) < near and abs(each[2] - right) < near and abs(each[3] - top) < near
        for each in others[first:last]
    )


def _remarks(pages: Sequence[_Page]) -> tuple[str, ...]:
    def where(test: Any) -> list[int]:
        return [number for number, page in enumerate(pages, 1) if test(page)]

    of = f" of {len(pages):,}"
    remarks = []
    for kind, what in (
        ("pictures", f"without text (pictures: {_OCR})"),
        ("drawings", "without text (drawings)"),
        ("blank", "blank"),
    ):
        if numbers := where(lambda page, kind=kind: page.without == kind):
            remarks.append(f"{_listed(numbers)}{of} {what}")
    for kind, what in (
        ("damaged", "damaged and left out"),
        ("undecodable", f"hardly decodable: most characters have no meaning in Unicode; {_OCR}"),
        ("spaceless", f"without spaces between words; {_OCR}"),
    ):
        if numbers := where(lambda page, kind=kind: page.trouble == kind):
            remarks.append(f"{_listed(numbers)}{of} {what}")
    if numbers := where(lambda page: page.lost):
        lost = sum(page.lost for page in pages)
        some = "1 character that has" if lost == 1 else f"{lost:,} characters that have"
        remarks.append(f"{_listed(numbers)}{of} with {some} no meaning in Unicode; {_OCR}")
    return tuple(remarks)


def _attached(document: Any) -> tuple[str, ...]:
    count = document.count_attachments()
    if count <= 0:
        return ()
    return (f"{count:,} attached file{'s' * (count > 1)} left out: save {'them' if count > 1 else 'it'} and name it",)


def _without_text(pages: Sequence[_Page], source: str) -> DocumentError:
    count = f"{len(pages):,} page{'s' * (len(pages) != 1)}"
    kinds = {page.without or page.trouble for page in pages}
    if kinds == {"damaged"}:
        return DocumentError(source, f"is a damaged PDF file: none of its {count} can be read")
    if kinds == {"blank"}:
        return DocumentError(source, f"has no text layer ({count}, blank)")
    shown = [each for each in ("pictures", "drawings", "blank", "damaged") if each in kinds]
    return DocumentError(source, f"has no text layer ({count}: {', '.join(shown)}): {_OCR}")


def _listed(numbers: Sequence[int]) -> str:
    first = ", ".join(str(number) for number in numbers[:_NAMED_PAGES])
    more = len(numbers) - _NAMED_PAGES
    return f"page{'s' * (len(numbers) > 1)} {first}" + (f" and {more:,} more" if more > 0 else "")
