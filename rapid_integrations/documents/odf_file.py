"""Read OpenDocument texts, sheets and slides of LibreOffice and others (.odt, .ods, .odp)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.formula import mathml
from rapid_integrations.documents.list_numbers import written
from rapid_integrations.documents.markdown_table import markdown_table
from rapid_integrations.documents.packed import Packed, child, descendants, local, value
from rapid_integrations.documents.raised import lowered, raised
from rapid_integrations.errors import DocumentError

_CELLS = 1_000_000
_FORMS = {"1": "decimal", "a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}
_OUTLINE = "headings"  # our name of the style that numbers headings
_BULLET = ("list-level-style-bullet", "", "", 1, 1)  # kind, prefix, suffix, start, levels shown
_CONTROLS = ("text", "textarea", "formatted-text", "number", "date", "checkbox", "radio", "combobox", "listbox")
_REPEATED = 60  # characters up to which a merged cell's text is written into each cell that it covers


def read_odf(data: bytes, source: str, limits: ReadLimits) -> Document:
    """Return the text of an OpenDocument file; sheets and slides are pages.

    Raises:
        DocumentError: the file is damaged or encrypted, or unpacks to more than `limits.unpacked_bytes`.
        MissingExtraError: the XML parser is not installed.
    """
    packed = Packed(data, source, "OpenDocument", limits)
    manifest = packed.read("META-INF/manifest.xml") or b""
    if b"encryption-data" in manifest:
        raise DocumentError(source, "is encrypted with a password: save a copy without it")
    root = packed.tree("content.xml")
    body = child(root, "body") if root is not None else None
    if root is None or body is None or not len(body):
        raise packed.damaged("it has no text part")
    reader = _Reader(root, packed)
    text, pages = "", []
    try:
        for part in body:
            kind = local(part)
            for each in [part] if kind == "text" else (e for e in part if local(e) in ("table", "page")):
                words = reader.text(each)
                if kind == "spreadsheet" and words:
                    words = f"# {value(each, 'name')}\n\n{words}"
                start = len(text) + 2 * bool(text and words)
                text += ("\n\n" if text and words else "") + words
                if kind != "text":
                    pages.append((min(start, len(text)), len(text)))
    except RecursionError as error:
        raise packed.damaged("its elements nest too deeply") from error
    notes = "\n".join(reader.notes)
    return Document("\n\n".join(each for each in (text, notes) if each), source, "odf", reader.remarks(), tuple(pages))


class _Reader:
    def __init__(self, root: Any, packed: Packed) -> None:
        self._packed = packed
        styles = packed.tree("styles.xml")
        self.notes: list[str] = []
        self._counts: Counter[str] = Counter()
        self._positions: dict[str, str] = {}  # raised and lowered character styles
        self._lists: dict[str, dict[int, tuple[str, str, str, int, int]]] = {}
        self._forms: dict[str, dict[int, str]] = {}
        self._controls = {
            identity: each for each in descendants(root, *_CONTROLS) if (identity := value(each, "id") or "")
        }
        self._counters: dict[str, list[int]] = {}
        self._cells = 0
        for tree in (styles, root):
            for each in descendants(tree, "style", "list-style", "outline-style") if tree is not None else ():
                name = _OUTLINE if local(each) == "outline-style" else value(each, "name") or ""
                if local(each) == "style":
                    properties = child(each, "text-properties")
                    position = (value(properties, "text-position") or "") if properties is not None else ""
                    if position[:5] in ("super", "sub 5") or position[:3] == "sub":
                        self._positions[name] = position[:3]
                    elif position[:1] == "-":
                        self._positions[name] = "sub"
                    elif position[:1].isdigit() and position[:1] != "0":
                        self._positions[name] = "sup"
                else:
                    self._lists[name] = {
                        _whole(value(level, "level"), 1): (
                            local(level),
                            value(level, "num-prefix") or "",
                            value(level, "num-suffix") or "",
                            _whole(value(level, "start-value"), 1),
                            _whole(value(level, "display-levels"), 1),
                        )
                        for level in each
                    }
                    self._forms[name] = {
                        _whole(value(level, "level"), 1): value(level, "num-format") or "" for level in each
                    }

    def text(self, element: Any) -> str:
        if local(element) == "table":
            return self._table(element)
        return "\n\n".join(each for each in self._blocks(element) if each.strip())

    def remarks(self) -> tuple[str, ...]:
        remarks = []
        for key, about in (("deletions", "tracked deletion"), ("objects", "embedded object"), ("pictures", "picture")):
            if count := self._counts[key]:
                remarks.append(f"{count:,} {about}{'s' * (count > 1)} left out")
        return tuple(remarks)

    def _blocks(self, element: Any, style: str = "", depth: int = 0) -> Iterator[str]:
        for each in element:
            match local(each):
                case "h":
                    level = max(1, min(10, _whole(value(each, "outline-level"), 1)))
                    number = self._outline(level)
                    yield f"{'#' * min(level, 6)} {number}{' '.join(self._inline(each).split())}"
                case "p":
                    yield self._inline(each)
                case "list":
                    yield "\n".join(self._items(each, value(each, "style-name") or style, depth + 1))
                case "table":
                    yield self._table(each)
                case "tracked-changes":
                    self._counts["deletions"] += sum(1 for _ in descendants(each, "deletion"))
                case "notes":
                    words = " ".join(" ".join(self._blocks(each)).split())
                    if words:
                        yield f"[Notes: {words}]"
                case "section" | "index-body" | "text-box" | "page" | "g":
                    yield from self._blocks(each)
                case "frame" | "custom-shape" | "rect" | "ellipse" | "line" | "connector":
                    words = self._frame(each)
                    if words:
                        yield words
                case name if name.endswith("-of-content") or name.endswith("-index"):
                    yield from self._blocks(each)

    def _outline(self, level: int) -> str:
        """Return the number of the next heading of a level, if the file counts headings."""
        counter = self._counters.setdefault(_OUTLINE, [0] * 11)
        _, _, _, start, _ = self._lists.get(_OUTLINE, {}).get(level, _BULLET)
        counter[level] = counter[level] + 1 if counter[level] else start
        counter[level + 1 :] = [0] * (10 - level)
        return self._label(_OUTLINE, level) if self._forms.get(_OUTLINE, {}).get(level) else ""

    def _label(self, style: str, depth: int) -> str:
        """Return a list number, with the numbers of the levels above that it shows."""
        _, prefix, suffix, _, shown = self._lists.get(style, {}).get(depth, _BULLET)
        forms, counter = self._forms.get(style, {}), self._counters[style]
        numbers = []
        for at in range(max(1, depth - shown + 1), depth + 1):
            form = forms.get(at, "1")
            numbers.append(written(counter[at], _FORMS.get(form, "decimal")) if form else "")
        return f"{prefix}{'.'.join(each for each in numbers if each)}{suffix} "

    def _items(self, element: Any, style: str, depth: int) -> Iterator[str]:
        counter = self._counters.setdefault(style, [0] * 11)
        if depth > 10:
            return
        kind, _, _, start, _ = self._lists.get(style, {}).get(depth, _BULLET)
        if value(element, "continue-numbering") != "true":
            counter[depth] = start - 1
        for item in element:
            if local(item) not in ("list-item", "list-header"):
                continue
            label = ""
            if local(item) == "list-item":
                if given := value(item, "start-value"):
                    counter[depth] = _whole(given, 1) - 1
                counter[depth] += 1
                if kind == "list-level-style-number":
                    label = self._label(style, depth)
                else:
                    label = "- "
            first = True
            for block in self._blocks(item, style, depth):
                nested = block.startswith("  " * depth)
                yield block if nested else f"{'  ' * (depth - 1)}{label if first else ' ' * len(label)}{block}"
                first = False

    def _inline(self, element: Any) -> str:
        text = element.text or ""
        for each in element:
            match local(each):
                case "s":
                    text += " " * min(_whole(value(each, "c"), 1), 100)
                case "tab":
                    text += "\t"
                case "line-break":
                    text += "\n"
                case "span":
                    words = self._inline(each)
                    position = self._positions.get(value(each, "style-name") or "", "")
                    text += raised(words) if position == "sup" else lowered(words) if position == "sub" else words
                case "note":
                    mark = len(self.notes) + 1
                    text += f"[^{mark}]"
                    self.notes.append("")
                    content = child(each, "note-body")
                    words = " ".join(" ".join(self._blocks(content)).split()) if content is not None else ""
                    self.notes[mark - 1] = f"[^{mark}]: {words}"
                case "annotation":
                    words = " ".join(" ".join(self._blocks(each)).split())
                    creator = next((e.text or "" for e in descendants(each, "creator")), "")
                    text += f" [Comment{f' by {creator}' if creator else ''}: {words}]"
                case "frame" | "custom-shape":
                    text += f" {self._frame(each)} "
                case "control":
                    text += f" {self._control(each)} "
                case "ruby":
                    base, reading = (child(each, name) for name in ("ruby-base", "ruby-text"))
                    text += self._inline(base) if base is not None else ""
                    text += f"({self._inline(reading)})" if reading is not None else ""
                case "soft-page-break" | "tracked-changes" | "hidden-text" | "office:forms":
                    pass
                case _:
                    if isinstance(each.tag, str):
                        text += self._inline(each)
            text += each.tail or ""
        return text.replace("\u00ad", "")

    def _frame(self, element: Any) -> str:
        words = [" ".join(self._blocks(element))]
        for each in element:
            if local(each) == "text-box":
                words = [" ".join(block for block in self._blocks(each))]
            elif local(each) in ("object", "object-ole"):
                shown = self._object((value(each, "href") or "").removeprefix("./"))
                words.append(shown)
                self._counts["objects"] += not shown
        described = [e.text.strip() for e in element if local(e) in ("desc", "title") and e.text and e.text.strip()]
        if described:
            words.append(f"[image: {described[-1]}]")
        elif not words[0].strip() and child(element, "image") is not None and child(element, "object") is None:
            self._counts["pictures"] += 1
        return " ".join(word for word in words if word.strip())

    def _object(self, name: str) -> str:
        """Return a formula or the values of a chart, or "" for other embedded files."""
        root = self._packed.tree(f"{name}/content.xml") if name else None
        if root is None:
            return ""
        if local(root) == "math":
            return _formula(root)
        chart = next(descendants(root, "chart"), None)
        tables = (
            [" ".join(self._table(each).split("\n")) for each in descendants(root, "table")]
            if chart is not None
            else []
        )
        return f"[chart: {' '.join(tables)}]" if tables else ""

    def _control(self, element: Any) -> str:
        """Return the value of a form's field."""
        control = self._controls.get(value(element, "control") or "")
        if control is None:
            return ""
        if local(control) in ("checkbox", "radio"):
            ticked = (value(control, "current-state") or value(control, "current-selected")) in ("checked", "true")
            return f"{'☒' if ticked else '☐'} {value(control, 'label') or ''}".strip()
        if local(control) == "listbox":
            return ", ".join(
                value(each, "label") or ""
                for each in control
                if local(each) == "option" and value(each, "current-selected") == "true"
            )
        return value(control, "current-value") or value(control, "value") or ""

    def _table(self, element: Any) -> str:
        rows: list[list[str]] = []
        covered: dict[tuple[int, int], str] = {}
        for row in _rows(element):
            cells: list[str] = []
            for cell in row:
                if local(cell) not in ("table-cell", "covered-table-cell"):
                    continue
                words = " ".join(" ".join(self._blocks(cell)).split())
                notes = "".join(
                    f" [Comment: {' '.join(' '.join(self._blocks(each)).split())}]"
                    for each in cell
                    if local(each) == "annotation"
                )
                words += notes
                if local(cell) == "covered-table-cell" and not words:
                    words = covered.get((len(rows), len(cells)), "")
                across = _whole(value(cell, "number-columns-spanned"), 1)
                down = _whole(value(cell, "number-rows-spanned"), 1)
                if across * down > 1 and len(words) <= _REPEATED:
                    for y in range(min(down, 1000)):
                        for x in range(min(across, 1000)):
                            covered[len(rows) + y, len(cells) + x] = words
                times = _whole(value(cell, "number-columns-repeated"), 1)
                cells += [words] * (min(times, 1000) if words else min(times, 100))
                self._cells += len(cells)
            while cells and not cells[-1]:
                cells.pop()
            times = _whole(value(row, "number-rows-repeated"), 1)
            rows += [cells] * (min(times, 1000) if cells else 1)
            self._cells += len(cells) * times
            if self._cells > _CELLS:
                self._counts["cells"] += 1
                break
        rows = [row for row in rows if row]
        return markdown_table(rows) if rows else ""


def _formula(root: Any) -> str:
    from bs4 import BeautifulSoup
    from lxml import etree

    element = BeautifulSoup(etree.tostring(root), "lxml-xml").find("math")
    return mathml(element).strip() if element is not None else ""


def _rows(element: Any) -> Iterator[Any]:
    for each in element:
        if local(each) == "table-row":
            yield each
        elif local(each) in ("table-rows", "table-header-rows", "table-row-group"):
            yield from _rows(each)


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 8 else otherwise
