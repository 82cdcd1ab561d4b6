"""Read form fields with their values, and comments, which lie on a PDF page but are not part of its text."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_HIDDEN_FLAGS = 2 | 32  # hidden, not for viewing (ISO 32000, table 165)
_PASSWORD_FLAG = 1 << 13  # of a text field (table 228)
_CHECKED, _UNCHECKED = "☒", "☐"
_OPTIONS = 1_000  # of a list, at most
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_SHOWN_STRING = re.compile(r"\(([^()\\]*)\)\s*Tj")
_SHOWN_NUMBER = re.compile(r"\d[\d.,' ]*")
_HELD = 1 << 12  # bytes of one string that are asked for at once


@dataclass(frozen=True)
class Field:
    """A form field whose value goes into the text.

    Attributes:
        box: left, bottom, right, top in points.
        text: the value: words, or a ticked or empty box.
        name: the field's name, for a field without a label beside it.
        before_label: whether the value stands before its label, as checkboxes do.
    """

    box: tuple[float, float, float, float]
    text: str
    name: str
    before_label: bool


def take_fields(document: Any, page: Any) -> list[Field]:
    """Return the page's filled fields and its checkboxes, and remove them from it.

    The rest (buttons, signatures, empty fields) is read from its drawing.
    """
    import pypdfium2.raw as pdfium

    fields = []
    for index in reversed(range(pdfium.FPDFPage_GetAnnotCount(page.raw))):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, index)
        if not annotation:
            continue
        try:
            taken = pdfium.FPDFAnnot_GetSubtype(annotation) == pdfium.FPDF_ANNOT_WIDGET and not (
                pdfium.FPDFAnnot_GetFlags(annotation) & _HIDDEN_FLAGS
            )
            field = _field(pdfium, document.formenv.raw, annotation) if taken and document.formenv else None
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)
        if field is not None:
            fields.append(field)
            pdfium.FPDFPage_RemoveAnnot(page.raw, index)
    return fields[::-1]


def comments(page: Any) -> list[str]:
    """Return comments on the page: notes, comments on marked words, text of stamps and callouts."""
    import pypdfium2.raw as pdfium

    kinds = {
        pdfium.FPDF_ANNOT_TEXT,
        pdfium.FPDF_ANNOT_FREETEXT,
        pdfium.FPDF_ANNOT_STAMP,
        pdfium.FPDF_ANNOT_CARET,
        pdfium.FPDF_ANNOT_LINE,
        pdfium.FPDF_ANNOT_SQUARE,
        pdfium.FPDF_ANNOT_CIRCLE,
        pdfium.FPDF_ANNOT_POLYGON,
        pdfium.FPDF_ANNOT_POLYLINE,
        pdfium.FPDF_ANNOT_INK,
        pdfium.FPDF_ANNOT_HIGHLIGHT,
        pdfium.FPDF_ANNOT_UNDERLINE,
        pdfium.FPDF_ANNOT_SQUIGGLY,
        pdfium.FPDF_ANNOT_STRIKEOUT,
        pdfium.FPDF_ANNOT_REDACT,
        pdfium.FPDF_ANNOT_FILEATTACHMENT,
    }
    found = []
    for index in range(pdfium.FPDFPage_GetAnnotCount(page.raw)):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, index)
        if not annotation:
            continue
        try:
            if pdfium.FPDFAnnot_GetSubtype(annotation) in kinds:
                if pdfium.FPDFAnnot_GetFlags(annotation) & _HIDDEN_FLAGS:
                    continue
                text = _string(lambda *a, at=annotation: pdfium.FPDFAnnot_GetStringValue(at, b"Contents", *a)).strip()
                if text:
                    found.append(text)
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)
    return found


def xfa_packets(document: Any) -> dict[str, bytes]:
    """Return the XML parts of an XFA form by name ("template", "datasets"), none for other files."""
    import pypdfium2.raw as pdfium

    packets = {}
    for index in range(max(0, pdfium.FPDF_GetXFAPacketCount(document.raw))):
        size = pdfium.FPDF_GetXFAPacketName(document.raw, index, None, 0)
        name = ctypes.create_string_buffer(max(1, size))
        pdfium.FPDF_GetXFAPacketName(document.raw, index, name, size)
        length = ctypes.c_ulong()
        pdfium.FPDF_GetXFAPacketContent(document.raw, index, None, 0, length)
        content = ctypes.create_string_buffer(max(1, length.value))
        pdfium.FPDF_GetXFAPacketContent(document.raw, index, content, length.value, length)
        packets[name.value.decode("latin-1")] = content.raw[: length.value]
    return packets


def _field(pdfium: Any, form: Any, annotation: Any) -> Field | None:
    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in (pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON):
        text = _CHECKED if pdfium.FPDFAnnot_IsChecked(form, annotation) else _UNCHECKED
    elif kind in (pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX):
        text = _chosen(pdfium, form, annotation, kind == pdfium.FPDF_FORMFIELD_LISTBOX)
    elif kind == pdfium.FPDF_FORMFIELD_TEXTFIELD:
        hidden = pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD_FLAG
        text = "" if hidden else _string(lambda *a: pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, *a))
        text = _as_shown(pdfium, annotation, text)
    else:
        return None
    if not text.strip():
        return None
    rectangle = pdfium.FS_RECTF()
    if not pdfium.FPDFAnnot_GetRect(annotation, rectangle):
        return None
    box = (rectangle.left, rectangle.bottom, rectangle.right, rectangle.top)
    name = _string(lambda *a: pdfium.FPDFAnnot_GetFormFieldAlternateName(form, annotation, *a)) or _string(
        lambda *a: pdfium.FPDFAnnot_GetFormFieldName(form, annotation, *a)
    )
    return Field(box, " ".join(text.split()), " ".join(name.split()), text in (_CHECKED, _UNCHECKED))


def _as_shown(pdfium: Any, annotation: Any, value: str) -> str:
    """Return a number as the field shows it ("232,324.00" for 232324), and any other value as it is."""
    if not _NUMBER.fullmatch(value):
        return value
    normal = pdfium.FPDF_ANNOT_APPEARANCEMODE_NORMAL
    shown = _SHOWN_STRING.findall(_string(lambda *a: pdfium.FPDFAnnot_GetAP(annotation, normal, *a)))
    if len(shown) == 1 and shown[0].isascii() and _is_same_number(shown[0], abs(float(value))):
        return str(shown[0]).strip()
    return value


def _is_same_number(text: str, value: float) -> bool:
    """Whether a text shows that number, rounded, with a point or a comma before its decimals.

    >>> _is_same_number("232,324.00 USD", 232324.0), _is_same_number("1.234,5", 1234.46), _is_same_number("3.00", 7.0)
    (True, True, False)
    """
    found = _SHOWN_NUMBER.findall(text)
    if len(found) != 1:
        return False
    if "%" in text:
        value *= 100
    for point in ".,":
        whole, *decimals = "".join(each for each in found[0] if each.isdigit() or each == point).split(point)
        if len(decimals) <= 1 and abs(float(f"{whole}.{''.join(decimals)}") - value) <= 0.501 * 10 ** -len(
            "".join(decimals)
        ):
            return True
    return False


def _chosen(pdfium: Any, form: Any, annotation: Any, listed: bool) -> str:
    """Return the words of the chosen options. An editable list may hold another value.

    `listed` says whether the page shows the other options, too.
    """
    count = min(_OPTIONS, pdfium.FPDFAnnot_GetOptionCount(form, annotation))
    labels = [
        _string(lambda *a, at=index: pdfium.FPDFAnnot_GetOptionLabel(form, annotation, at, *a))
        for index in range(count)
    ]
    chosen = [label for index, label in enumerate(labels) if pdfium.FPDFAnnot_IsOptionSelected(form, annotation, index)]
    value = ", ".join(chosen) or _string(lambda *a: pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, *a))
    return f"{value or 'nothing'} [chosen from: {', '.join(labels)}]" if listed and labels else value


def _string(ask: Callable[..., int]) -> str:
    """Return the UTF-16 text that a function of PDFium writes into a buffer of a given size in bytes."""
    import pypdfium2.raw as pdfium

    buffer = (pdfium.FPDF_WCHAR * (_HELD // 2))()
    size = ask(buffer, _HELD)
    if size > _HELD:
        buffer = (pdfium.FPDF_WCHAR * (size // 2 + 1))()
        size = ask(buffer, size)
    return bytes(buffer)[: max(0, size - 2)].decode("utf-16-le", "replace")
