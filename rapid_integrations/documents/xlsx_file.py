"""Read XLSX: the sheets of a workbook as tables, with the displayed values. Each sheet is a page."""

from __future__ import annotations

import datetime
import io
import re
import warnings
from typing import Any

from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.markdown_table import markdown_table
from rapid_integrations.documents.packed import Packed
from rapid_integrations.documents.raised import lowered, raised
from rapid_integrations.errors import DocumentError, MissingExtraError

_CELLS = 2_000_000  # maximum of all sheets
_SIGNS = re.compile(r'"([^"]*)"|\[\$([^\]-]*)[^\]]*\]|([€£$¥])')
_BEFORE_DIGITS = re.compile(r'((?:"[^"]*"|\[[^\]]*\]|[^0#?"\[])*)([0#?].*)')
_THOUSANDS = re.compile(r"[0#?](,+)(?![0#?,])")  # commas behind the last digit each divide by a thousand
_REPEATED = 60  # characters up to which a merged cell's text is written into each cell that it covers


def read_xlsx(data: bytes, source: str, limits: ReadLimits) -> Document:
    """Return a workbook's cells, with the saved values of formulas, and with formatted dates and percentages.

    Raises:
        DocumentError: the file is damaged, or unpacks to more than `limits.unpacked_bytes`.
        MissingExtraError: the reader is not installed.
    """
    try:
        import openpyxl
    except ImportError:
        raise MissingExtraError(feature=f"Reading {source}", extra="documents") from None
    packed = Packed(data, source, "XLSX", limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of parts that it would not keep when writing
            values = openpyxl.load_workbook(io.BytesIO(data), data_only=True, rich_text=True)
            formulas = openpyxl.load_workbook(io.BytesIO(data))
            return _workbook(values, formulas, source)
    except DocumentError:
        raise
    except Exception as error:  # the library raises many types of errors for damaged files
        raise packed.damaged(error) from error


def _workbook(values: Any, formulas: Any, source: str) -> Document:
    text, pages = "", []
    uncomputed = cells = 0
    hidden, drawn = [], []
    for sheet in values.worksheets:
        if sheet.sheet_state != "visible":
            hidden.append(sheet.title)
        if sheet._charts or sheet._images:
            drawn.append(sheet.title)
        cells += sheet.max_row * sheet.max_column
        if cells > _CELLS:
            raise DocumentError(source, f"holds more than {_CELLS:,} cells: give the sheet that you ask about")
        computed = formulas[sheet.title]
        merged = {
            (row, column): area
            for area in sheet.merged_cells.ranges
            for row in range(area.min_row, area.max_row + 1)
            for column in range(area.min_col, area.max_col + 1)
        }
        rows = []
        for row in sheet.iter_rows():
            line = []
            for cell in row:
                area = merged.get((cell.row, cell.column))
                first = cell if area is None else sheet.cell(area.min_row, area.min_col)
                shown = _shown(first.value, first.number_format)
                if not shown:
                    formula = computed.cell(first.row, first.column).value
                    if isinstance(formula, str) and formula.startswith("="):
                        shown = formula
                        uncomputed += first is cell
                if first is not cell and len(shown) > _REPEATED:
                    shown = ""
                if first is cell and cell.comment is not None:
                    shown += f" [Comment: {' '.join(str(cell.comment.text).split())}]"
                line.append(shown)
            rows.append(line)
        while rows and not any(rows[-1]):
            rows.pop()
        if not rows:
            pages.append((len(text), len(text)))
            continue
        width = max(max((at for at, each in enumerate(row, 1) if each), default=0) for row in rows)
        table = markdown_table([row[:width] for row in rows if any(row)])
        words = f"# {sheet.title}\n\n{table}"
        text += ("\n\n" if text else "") + words
        pages.append((len(text) - len(words), len(text)))
    remarks = []
    if uncomputed:
        remarks.append(f"{uncomputed:,} formula{'s' * (uncomputed > 1)} without a saved value, read as written")
    if hidden:
        remarks.append(f"hidden in the workbook, read all the same: {', '.join(hidden)}")
    if drawn:
        remarks.append(f"charts and pictures left out on {', '.join(drawn)}")
    return Document(text, source, "xlsx", tuple(remarks), tuple(pages))


def _shown(value: Any, form: str) -> str:
    """Return a value in its number format: dates, percentages, currencies."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        whole_day = value.time() == datetime.time()
        return value.date().isoformat() if whole_day else value.isoformat(" ", "seconds")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, list):  # runs of text, each with its font
        return "".join(map(_run, value))
    if isinstance(value, float | int):
        return _number(value, str(form))
    return str(value)


def _run(run: Any) -> str:
    level = getattr(getattr(run, "font", None), "vertAlign", None)
    text = str(getattr(run, "text", run))
    return raised(text) if level == "superscript" else lowered(text) if level == "subscript" else text


def _number(value: float, form: str) -> str:
    """Return a number with its format's additions: percent, leading zeros, a currency or a unit."""
    form = form.split(";")[0]
    if "%" in form:
        return f"{round(value * 100, 10):.10g}%"
    if re.fullmatch("0{2,}", form) and value == int(value):
        return f"{int(value):0{len(form)}}"
    if thousands := _THOUSANDS.search(re.sub(r'"[^"]*"', "", form)):  # 0.0,," M" shows millions
        value = value / 1000.0 ** len(thousands[1])
    shown = str(value) if isinstance(value, int) else f"{value:.15g}"
    parts = _BEFORE_DIGITS.match(form)
    if parts is None:
        return shown
    before, after = (_signs(part) for part in parts.groups())
    return f"{before}{shown}{after}"


def _signs(form: str) -> str:
    """Return the words and signs of a part of a number format: "kg", €, and the currency of `[$CHF-807]`."""
    signs = (quoted or named or bare for quoted, named, bare in _SIGNS.findall(form))
    return "".join(each if each != "_" else "" for each in signs)
