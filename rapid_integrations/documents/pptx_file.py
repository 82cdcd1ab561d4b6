"""Read PPTX: the words of slides, tables, charts and diagrams, with the speaker's notes. Each slide is a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.drawing_text import chart_text, diagram_text
from rapid_integrations.documents.formula import omml
from rapid_integrations.documents.list_numbers import written
from rapid_integrations.documents.markdown_table import markdown_table
from rapid_integrations.documents.packed import Packed, child, descendants, local, value
from rapid_integrations.documents.raised import lowered, raised

_NUMBERS = {"alphaLc": "lowerLetter", "alphaUc": "upperLetter", "romanLc": "lowerRoman", "romanUc": "upperRoman"}
_SILENT_PLACES = ("sldNum", "dt", "ftr", "hdr", "sldImg")  # placeholders that repeat on every slide


def read_pptx(data: bytes, source: str, limits: ReadLimits) -> Document:
    """Return the text of a presentation.

    Raises:
        DocumentError: the file is damaged, or unpacks to more than `limits.unpacked_bytes`.
        MissingExtraError: the XML parser is not installed.
    """
    packed = Packed(data, source, "PPTX", limits)
    main = next(
        (name for kind, name in packed.relations("").values() if kind == "officeDocument"), "ppt/presentation.xml"
    )
    root = packed.tree(main)
    if root is None:
        raise packed.damaged("it has no presentation part")
    related = packed.relations(main)
    text, pages, hidden = "", [], []
    counts: Counter[str] = Counter()
    for number, each in enumerate(descendants(root, "sldId"), 1):
        # The attribute `id` is there twice: the slide's number, and the part's in the namespace of relations.
        ids = [given for key, given in each.attrib.items() if key.endswith("}id")]
        name = related.get(ids[0] if ids else "", ("", ""))[1]
        try:
            words, shown = _slide(packed, name, counts)
        except RecursionError as error:
            raise packed.damaged("its elements nest too deeply") from error
        if not shown:
            hidden.append(number)
        start = len(text) + 2 * bool(text and words)
        text += ("\n\n" if text and words else "") + words
        pages.append((min(start, len(text)), len(text)))
    remarks = []
    if hidden:
        remarks.append(
            f"slide{'s' * (len(hidden) > 1)} {', '.join(map(str, hidden))} hidden in the show, read all the same"
        )
    if counts["pictures"]:
        remarks.append(f"{counts['pictures']:,} picture{'s' * (counts['pictures'] > 1)} without a description left out")
    return Document(text, source, "pptx", tuple(remarks), tuple(pages))


def _slide(packed: Packed, name: str, counts: Counter[str]) -> tuple[str, bool]:
    root = packed.tree(name)
    if root is None:
        return "", True
    related = packed.relations(name)
    tree = child(root, "cSld", "spTree")
    blocks = list(_shapes(tree, packed, related, counts)) if tree is not None else []
    for kind, part in related.values():
        if kind == "notesSlide" and (notes := packed.tree(part)) is not None:
            words = " ".join(
                block for shape in descendants(notes, "sp") if not _is_silent(shape) for block in _paragraphs(shape)
            )
            if words.strip():
                blocks.append(f"[Notes: {' '.join(words.split())}]")
        elif kind == "comments" and (comments := packed.tree(part)) is not None:
            for each in descendants(comments, "cm"):
                words = " ".join("".join(text.text or "" for text in descendants(each, "text", "t")).split())
                if words:
                    blocks.append(f"[Comment: {words}]")
    return "\n".join(blocks).strip(), root.get("show") != "0"


def _shapes(tree: Any, packed: Packed, related: dict[str, tuple[str, str]], counts: Counter[str]) -> Iterator[str]:
    for shape in tree:
        match local(shape):
            case "sp" | "cxnSp":
                if not _is_silent(shape):
                    title = _place(shape) in ("title", "ctrTitle")
                    words = list(_paragraphs(shape))
                    yield from [f"# {' '.join(words)}"] if title and words else words
            case "grpSp":
                yield from _shapes(shape, packed, related, counts)
            case "AlternateContent":
                choices = [each for each in shape if local(each) in ("Choice", "Fallback") and len(each)]
                if choices:
                    yield from _shapes(choices[0], packed, related, counts)
            case "pic":
                found = next(descendants(shape, "cNvPr"), None)
                described = " ".join((value(found, "descr") or "").split()) if found is not None else ""
                counts["pictures"] += not described
                if described:
                    yield f"[image: {described}]"
            case "graphicFrame":
                for table in descendants(shape, "tbl"):
                    yield f"\n{_table(table)}\n"
                for kind, attribute, write in (("chart", "id", chart_text), ("relIds", "dm", diagram_text)):
                    for each in descendants(shape, kind):
                        part = packed.tree(related.get(value(each, attribute) or "", ("", ""))[1])
                        if part is not None:
                            yield write(part)


def _place(shape: Any) -> str:
    found = next(descendants(shape, "ph"), None)
    return (value(found, "type") or "body") if found is not None else ""


def _is_silent(shape: Any) -> bool:
    return _place(shape) in _SILENT_PLACES


def _paragraphs(shape: Any) -> Iterator[str]:
    for body in descendants(shape, "txBody"):
        counts: dict[int, int] = {}
        for paragraph in body:
            if local(paragraph) != "p" or not (words := _line(paragraph).strip()):
                continue
            properties = child(paragraph, "pPr")
            given = (value(properties, "lvl") or "0") if properties is not None else "0"
            depth = min(int(given), 8) if given.isdecimal() else 0
            label = _number(properties, counts, depth) or ("- " if depth else "")
            yield f"{'  ' * depth}{label}{words}"


def _number(properties: Any | None, counts: dict[int, int], depth: int) -> str:
    """Return the list number of a paragraph, or "" if it has none."""
    numbered = child(properties, "buAutoNum") if properties is not None else None
    for deeper in [each for each in counts if each > depth or numbered is None]:
        del counts[deeper]
    if numbered is None:
        return ""
    start = value(numbered, "startAt") or "1"
    counts[depth] = counts.get(depth, int(start) - 1 if start.isdecimal() else 0) + 1
    kind = value(numbered, "type") or "arabicPeriod"
    form = next((form for name, form in _NUMBERS.items() if kind.startswith(name)), "decimal")
    before = "(" if kind.endswith("ParenBoth") else ""
    after = ")" if "Paren" in kind else "." if kind.endswith("Period") else ""
    return f"{before}{written(counts[depth], form)}{after} "


def _line(paragraph: Any) -> str:
    text = ""
    for each in paragraph:
        match local(each):
            case "r" | "fld":
                words = "".join(part.text or "" for part in each if local(part) == "t")
                properties = child(each, "rPr")
                base = (value(properties, "baseline") or "0") if properties is not None else "0"
                text += raised(words) if base[0] not in "-0" else lowered(words) if base[0] == "-" else words
            case "br":
                text += "\n"
            case "AlternateContent" | "m":
                formula = next(descendants(each, "oMath"), None)
                if formula is not None:
                    text += f" {omml(formula)} "
    return text


def _table(table: Any) -> str:
    rows: list[list[str]] = []
    for row in descendants(table, "tr"):
        cells: list[str] = []
        for cell in (each for each in row if local(each) == "tc"):
            words = " ".join(_line(each) for each in descendants(cell, "p"))
            if cell.get("hMerge") in ("1", "true") and cells:
                words = cells[-1]
            elif cell.get("vMerge") in ("1", "true") and rows and len(cells) < len(rows[-1]):
                words = rows[-1][len(cells)]
            cells.append(words)
        rows.append(cells)
    return markdown_table(rows)
