"""Read the blocks of a Word file: paragraphs with their numbers, tables with every cell, text boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rapid_integrations.documents.docx_numbers import Numbering
from rapid_integrations.documents.docx_runs import Line, Runs, date_of, is_placeholder
from rapid_integrations.documents.docx_styles import Characters, Styles
from rapid_integrations.documents.markdown_table import markdown_table
from rapid_integrations.documents.packed import child, chosen, local, value

_INDENT = "  "  # of a list within a list
_ABOUT = {
    "deletions": "{count:,} tracked deletion{s} left out",
    "hidden": "hidden text left out ({count:,} passage{s})",
    "pictures": "{count:,} picture{s} without a description left out",
    "embedded": "{count:,} embedded file{s} left out",
    "fields": "{count:,} field{s} without a value",
    "signs": "{count:,} sign{s} of a symbol font that is not known, read as \ufffd",
    "equations": "{count:,} equation{s} as a picture left out",
}


class Body:
    """Args:
    numbering: counts lists.
    styles: the styles of paragraphs.
    notes: footnotes and endnotes by (kind, id).
    comments: by ("comment", id).
    drawings: gives the root of a related part (a chart, a diagram) by its id.
    """

    def __init__(
        self,
        numbering: Numbering,
        styles: Styles,
        notes: Mapping[tuple[str, str], Any],
        comments: Mapping[tuple[str, str], Any],
        drawings: Callable[[str], Any | None],
    ) -> None:
        self._numbering, self._styles = numbering, styles
        self._notes, self._comments = notes, comments
        self._drawings = drawings
        self._numbers: dict[tuple[str, str], int] = {}
        self._inner_comments: set[str] = set()
        self._tables = 0  # around the block that is read
        self.counts: Counter[str] = Counter()

    def text(self, element: Any) -> str:
        """Return the blocks of an element as Markdown."""
        text, listed = "", False
        for block in self.blocks(element):
            item = block.startswith("\0")
            text += ("\n" if item and listed else "\n\n" if text else "") + block.removeprefix("\0")
            listed = item
        return text

    def blocks(self, element: Any) -> Iterator[str]:
        """Yield paragraphs and tables. Later items of a list begin with NUL, which joins them to the item before."""
        runs = Runs(self)
        for each in element:
            match local(each):
                case "p":
                    yield from self._paragraph(each, runs)
                case "tbl":
                    yield from self._table(each)
                case "sdt":
                    content = child(each, "sdtContent")
                    inner = list(self.blocks(content)) if content is not None else []
                    if not "".join(inner).strip() and (day := date_of(each)):
                        inner = [day]
                    if is_placeholder(each) and (prompt := " ".join(" ".join(inner).replace("\0", "").split())):
                        inner = [f"[not filled in: {prompt}]"]
                    yield from inner
                case "ins" | "moveTo" | "customXml" | "smartTag" | "txbxContent":
                    yield from self.blocks(each)
                case "del" | "moveFrom":
                    self.counts["deletions"] += 1
                case "AlternateContent":
                    yield from self.blocks(chosen(each))
                case "altChunk":
                    self.counts["embedded"] += 1
                case "oMathPara" | "oMath":
                    line = runs.of(each)
                    if line.text.strip():
                        yield line.text.strip()

    def notes_text(self) -> str:
        """Return the referenced notes, in order."""
        lines = []
        done = 0
        while done < len(self._numbers):  # a note may refer to another note
            key = list(self._numbers)[done]
            done += 1
            text = " ".join(self.text(self._notes[key]).split())
            lines.append(f"[^{self._numbers[key]}]: {text}")
        return "\n".join(lines)

    def note(self, kind: str, identity: str) -> str:
        """Return the mark of a note, whose text `notes_text` returns."""
        if (kind, identity) not in self._notes:
            return ""
        number = self._numbers.setdefault((kind, identity), len(self._numbers) + 1)
        return f"[^{number}]"

    def comment(self, identity: str) -> str:
        """Return a comment in the form that follows the words it is about."""
        element = self._comments.get(("comment", identity))
        if element is None or identity in self._inner_comments:
            return ""
        self._inner_comments.add(identity)
        text = " ".join(self.text(element).split())
        author = value(element, "author")
        return f" [Comment{f' by {author}' if author else ''}: {text}]" if text else ""

    def characters(self, style: str) -> Characters:
        """Return the effect of a character style on a run."""
        return self._styles.characters(style)

    def drawing(self, identity: str) -> Any | None:
        """Return the root of a chart's or a diagram's part, or None if the file lacks it."""
        return self._drawings(identity)

    def remarks(self) -> tuple[str, ...]:
        """Return remarks about omissions."""
        return tuple(
            about.format(count=self.counts[key], s="s" * (self.counts[key] > 1))
            for key, about in _ABOUT.items()
            if self.counts[key]
        )

    def _paragraph(self, element: Any, runs: Runs) -> Iterator[str]:
        line: Line = runs.of(element)
        properties = child(element, "pPr")
        style = self._style(properties)
        label, level = self._label(properties, style)
        text = line.text.strip("\n") if line.text.strip() else ""
        if text:
            heading = self._styles.heading(style)
            if heading:
                words = " ".join(text.split())
                yield f"{'#' * heading} {label + ' ' if label and label != '-' else ''}{words}"
            elif label:
                yield f"\0{_INDENT * level}{label} {text.strip()}"
            else:
                yield text.rstrip()
        for box in line.boxes:
            if box.strip():
                yield box

    def _style(self, properties: Any | None) -> str:
        found = child(properties, "pStyle") if properties is not None else None
        return (value(found) or "") if found is not None else "Normal"

    def _label(self, properties: Any | None, style: str) -> tuple[str, int]:
        own = child(properties, "numPr") if properties is not None else None
        number = child(own, "numId") if own is not None else None
        depth = child(own, "ilvl") if own is not None else None
        named = value(number) if number is not None else None
        level = _whole(value(depth)) if depth is not None else None
        if named is None:
            named, of_style, by = self._styles.list_of(style)
            if named is None:
                return "", 0
            if level is None:
                level = of_style if of_style is not None else self._numbering.level_of_style(named, by)
        return self._numbering.label(named, level or 0), min(level or 0, 8)

    def _table(self, element: Any) -> Iterator[str]:
        """Yield a table; within another one, a cell of which is one line, its rows stand behind one another.

        A table of one cell around another table is a frame, and is not shown.
        """
        cells = [cell for row in _rows(element) for cell in _cells(row)]
        if len(cells) == 1 and child(cells[0], "tbl") is not None:
            yield from self.blocks(cells[0])
            return
        self._tables += 1
        rows = self._cells_of(element)
        self._tables -= 1
        if rows and self._tables:
            yield "; ".join(", ".join(filter(None, row)) for row in rows if any(row))
        elif rows:
            yield markdown_table(rows)

    def _cells_of(self, element: Any) -> list[list[str]]:
        """Return the rows of a table."""
        rows: list[list[str]] = []
        above: list[str] = []
        for row in _rows(element):
            properties = child(row, "trPr")
            if properties is not None and child(properties, "del") is not None:
                self.counts["deletions"] += 1
                continue
            before = child(properties, "gridBefore") if properties is not None else None
            cells = [""] * min(_whole(value(before)) if before is not None else 0, 100)
            for cell in _cells(row):
                settings = child(cell, "tcPr")
                span = child(settings, "gridSpan") if settings is not None else None
                merged = child(settings, "vMerge") if settings is not None else None
                text = " ".join(" ".join(self.blocks(cell)).replace("\0", "").split())
                if merged is not None and value(merged) != "restart" and not text and len(cells) < len(above):
                    text = above[len(cells)]
                width = max(1, min(_whole(value(span)) if span is not None else 1, 100))
                cells += [text, *[text if len(text) <= 60 else ""] * (width - 1)]
            rows.append(cells)
            above = cells
        return rows


def _rows(element: Any) -> Iterator[Any]:
    for each in element:
        if local(each) == "tr":
            yield each
        elif local(each) in ("sdt", "sdtContent", "ins", "customXml"):
            yield from _rows(each)


def _cells(row: Any) -> Iterator[Any]:
    for each in row:
        if local(each) == "tc":
            yield each
        elif local(each) in ("sdt", "sdtContent", "ins", "customXml"):
            yield from _cells(each)


def _whole(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 7 else 0
