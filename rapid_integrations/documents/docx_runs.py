"""Read the content of a Word paragraph: runs, fields, forms, notes, formulas, drawings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rapid_integrations.documents.drawing_text import drawing_text
from rapid_integrations.documents.formula import omml
from rapid_integrations.documents.packed import child, chosen, descendants, is_on, local, value
from rapid_integrations.documents.raised import lowered, raised
from rapid_integrations.documents.symbol_fonts import is_symbol_font, sign

if TYPE_CHECKING:
    from rapid_integrations.documents.docx_body import Body

_TRANSPARENT = ("ins", "moveTo", "hyperlink", "smartTag", "customXml", "fldSimple", "dir", "bdo", "sdtContent")
_MERGED = re.compile(r"\s*MERGEFIELD\s+(?:\"([^\"]+)\"|(\S+))", re.IGNORECASE)
_SHOWN_CODES = re.compile(r"\s*(?:EQ\b|FORMULA\b|=).*", re.IGNORECASE | re.DOTALL)
_SILENT = ("PAGE", "NUMPAGES", "SECTIONPAGES", "TOC", "TC", "XE", "RD", "SET", "INDEX", "HYPERLINK", "PRIVATE", "NEXT")
_MOVED = 3  # half points that make characters superscript or subscript
_SHORT = 8  # maximum characters of an exponent or an index
_BOX, _TICKED = "☐", "☒"


@dataclass
class Line:
    """A paragraph's text, and the text boxes that are anchored in it."""

    text: str = ""
    boxes: list[str] = field(default_factory=list)


@dataclass
class _Field:
    code: str = ""
    shows: bool = False  # its value follows
    start: int = 0  # of the value among the pieces
    form: Any = None


class Runs:
    """Reads paragraphs. A field may span several of them.

    Args:
        body: knows the notes, and counts omissions.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._fields: list[_Field] = []
        self._pieces: list[tuple[str, str]] = []  # (level, text); level is "", "superscript" or "subscript"
        self._boxes: list[str] = []

    def of(self, paragraph: Any) -> Line:
        """Return the visible text of a paragraph (or a formula)."""
        self._pieces, self._boxes = [], []
        for each in self._fields:
            each.start = 0
        if local(paragraph) in ("oMath", "oMathPara"):
            self._inline(paragraph)
        for element in paragraph:
            self._inline(element)
        return Line(self._joined(), self._boxes)

    def _inline(self, element: Any) -> None:
        name = local(element)
        if name == "r":
            self._run(element)
        elif name == "sdt":
            self._control(element)
        elif name in _TRANSPARENT:
            before = len(self._pieces)
            for each in element:
                self._inline(each)
            if name == "fldSimple" and not "".join(text for _, text in self._pieces[before:]).strip():
                self._put(self._without_value(value(element, "instr") or ""))
        elif name in ("del", "moveFrom"):
            self._body.counts["deletions"] += 1
        elif name == "oMath":
            self._put(f" {omml(element)} ")
        elif name == "oMathPara":
            for each in descendants(element, "oMath"):
                self._put(f" {omml(each)} ")
        elif name == "AlternateContent":
            for each in chosen(element):
                self._inline(each)

    def _run(self, run: Any) -> None:
        properties = child(run, "rPr")
        level = font = ""
        struck = hidden = False
        for each in properties if properties is not None else ():  # the style is the first of them
            match local(each):
                case "rStyle":
                    style = self._body.characters(value(each) or "")
                    level, struck, hidden = style.raised, style.struck, style.hidden
                case "vanish":
                    hidden = is_on(each)
                case "vertAlign":
                    level = value(each) or ""
                case "position":
                    level = level or _level(value(each), run)
                case "rFonts":
                    font = value(each, "ascii") or ""
                case "strike" | "dstrike":
                    struck = is_on(each)
        if hidden:
            self._body.counts["hidden"] += any(each.text for each in descendants(run, "t"))
            return
        for each in run:
            self._put(self._piece(each, font, struck), level)

    def _piece(self, element: Any, font: str, struck: bool) -> str:
        match local(element):
            case "t":
                text = element.text or ""
                if is_symbol_font(font):
                    text = "".join(self._sign(font, ord(each)) if not each.isspace() else each for each in text)
                return f"~~{text}~~" if struck and text.strip() else text
            case "tab" | "ptab":
                return "\t"
            case "br" | "cr":
                return "\n"
            case "noBreakHyphen":
                return "-"
            case "sym":
                code = value(element, "char") or ""
                return self._sign(
                    value(element, "font") or "", int(code, 16) if re.fullmatch(r"[\dA-Fa-f]{1,6}", code) else 0
                )
            case "fldChar":
                return self._field(element)
            case "instrText":
                if self._fields:
                    self._fields[-1].code += element.text or ""
                return ""
            case "footnoteReference":
                return self._body.note("footnote", value(element, "id") or "")
            case "endnoteReference":
                return self._body.note("endnote", value(element, "id") or "")
            case "commentReference":
                return self._body.comment(value(element, "id") or "")
            case "drawing" | "pict" | "object":
                return self._drawing(element)
            case "AlternateContent":
                return "".join(self._piece(each, font, struck) for each in chosen(element))
            case "ruby":
                base, reading = (
                    "".join(t.text or "" for t in descendants(part, "t")) if part is not None else ""
                    for part in (child(element, "rubyBase"), child(element, "rt"))
                )
                return f"{base}({reading})" if reading else base
            case "delText":
                self._body.counts["deletions"] += 1
        return ""

    def _sign(self, font: str, code: int) -> str:
        found = sign(font, code)
        if found is None:
            self._body.counts["signs"] += 1
        return found or "\ufffd"

    def _drawing(self, element: Any) -> str:
        """Return a picture's description. The text of a text box follows the paragraph."""
        boxes = [each for each in descendants(element, "txbxContent") if not _within(each, element, "txbxContent")]
        boxes = [each for each in boxes if not _within(each, element, "Fallback")] or boxes
        for each in boxes:
            self._boxes.append(self._body.text(each))
        shown = drawing_text(element, self._body.drawing)
        if not shown and not boxes:
            kind = "pictures"
            if local(element) == "object":
                ole = next(descendants(element, "OLEObject"), None)
                program = (value(ole, "ProgID") or "") if ole is not None else ""
                kind = "equations" if program.startswith(("Equation", "MathType")) else "embedded"
            self._body.counts[kind] += any(
                True for _ in descendants(element, "blip", "imagedata", "OLEObject", "chart")
            )
        return shown

    def _control(self, element: Any) -> None:
        """Read the value of a content control. A checkbox keeps it separate from its text."""
        content, properties = child(element, "sdtContent"), child(element, "sdtPr")
        before = len(self._pieces)
        for each in content if content is not None else ():
            self._inline(each)
        box = child(properties, "checkbox") if properties is not None else None
        if box is None and not any(text.strip() for _, text in self._pieces[before:]):
            self._put(date_of(element))
        prompt = " ".join("".join(text for _, text in self._pieces[before:]).split())
        if box is None and prompt and is_placeholder(element):
            del self._pieces[before:]
            self._put(f"[not filled in: {prompt}]")
        if box is not None:
            checked = child(box, "checked")
            del self._pieces[before:]
            self._put(_TICKED if checked is not None and is_on(checked) else _BOX)

    def _field(self, element: Any) -> str:
        match value(element, "fldCharType"):
            case "begin":
                self._fields.append(_Field(form=child(element, "ffData"), start=len(self._pieces)))
            case "separate" if self._fields:
                self._fields[-1].shows = True
                self._fields[-1].start = len(self._pieces)
            case "end" if self._fields:
                ended = self._fields.pop()
                return self._ended(ended)
        return ""

    def _ended(self, ended: _Field) -> str:
        if ended.form is not None:
            box, choice = child(ended.form, "checkBox"), child(ended.form, "ddList")
            if box is not None:
                state = child(box, "checked") if child(box, "checked") is not None else child(box, "default")
                return _TICKED if state is not None and is_on(state) else _BOX
            if choice is not None:
                entries = [value(each) or "" for each in choice if local(each) == "listEntry"]
                result = child(choice, "result") if child(choice, "result") is not None else child(choice, "default")
                at = int(value(result) or 0) if result is not None and (value(result) or "0").isdecimal() else 0
                return entries[at] if at < len(entries) else ""
        if "".join(text for _, text in self._pieces[ended.start :]).strip() and ended.shows:
            return ""
        return self._without_value(ended.code)

    def _without_value(self, code: str) -> str:
        """Return a replacement for a field without a value: a merge field's name, or a formula's code."""
        kind = code.split()[0].upper() if code.split() else ""
        if not kind or kind in _SILENT:
            return ""
        self._body.counts["fields"] += 1
        if found := _MERGED.match(code):
            return f"«{found[1] or found[2]}»"
        if found := _SHOWN_CODES.match(code):
            return found[0].strip()
        return ""

    def _put(self, text: str, level: str = "") -> None:
        if any(not each.shows for each in self._fields):
            return  # a field's code
        if text:
            self._pieces.append((level if level in ("superscript", "subscript") else "", text))

    def _joined(self) -> str:
        """Return the pieces in one line. Neighbours of the same level are marked together."""
        text, run, level = "", "", ""
        for here, piece in [*self._pieces, ("end", "")]:
            if here != level:
                write = raised if level == "superscript" else lowered if level == "subscript" else str
                text += write(run) if run.strip() else run
                run, level = "", here
            run += piece
        return re.sub(" {2,}", " ", text.replace("\u00ad", "").replace("\u00a0", " ").replace("\u2011", "-"))


def is_placeholder(control: Any) -> bool:
    """Whether a content control shows its prompt instead of a value."""
    shown = child(control, "sdtPr", "showingPlcHdr")
    return shown is not None and is_on(shown)


def date_of(control: Any) -> str:
    """Return the day that a content control for dates keeps (2024-05-31); "" for other controls."""
    date = child(control, "sdtPr", "date")
    return (value(date, "fullDate") or "")[:10] if date is not None else ""


def _level(position: str | None, run: Any) -> str:
    """Return the level of a short text that is raised or lowered by half points, as some exponents are."""
    text = "".join(each.text or "" for each in descendants(run, "t"))
    if not re.fullmatch(r"-?\d{1,4}", position or "") or not re.fullmatch(rf"\S{{1,{_SHORT}}}", text):
        return ""
    moved = int(position or 0)
    return "superscript" if moved >= _MOVED else "subscript" if moved <= -_MOVED else ""


def _within(element: Any, top: Any, name: str) -> bool:
    above = element.getparent()
    while above is not None and above is not top:
        if local(above) == name:
            return True
        above = above.getparent()
    return False
