"""DOCX to Markdown: the body with its numbers, notes, comments, forms and formulas; page headers and footers."""

from __future__ import annotations

from typing import Any

from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.docx_body import Body
from rapid_integrations.documents.docx_numbers import Numbering
from rapid_integrations.documents.docx_styles import Styles
from rapid_integrations.documents.packed import Packed, child, descendants, local, value


def read_docx(data: bytes, source: str, limits: ReadLimits) -> Document:
    """Return the text of a Word file. Tracked insertions are included, and tracked deletions are left out.

    Raises:
        DocumentError: the file is damaged, or unpacks to more than `limits.unpacked_bytes`.
        MissingExtraError: the XML parser is not installed.
    """
    packed = Packed(data, source, "DOCX", limits)
    main = next((name for kind, name in packed.relations("").values() if kind == "officeDocument"), "word/document.xml")
    root = packed.tree(main)
    if root is None or child(root, "body") is None:
        raise packed.damaged("it has no text part")
    related = packed.relations(main)

    def part(kind: str) -> Any | None:
        name = next((name for each, name in related.values() if each == kind), None)
        return packed.tree(name) if name else None

    body = Body(
        numbering=Numbering(part("numbering")),
        styles=Styles(part("styles")),
        notes={**_notes(part("footnotes"), "footnote"), **_notes(part("endnotes"), "endnote")},
        comments=_notes(part("comments"), "comment"),
        drawings=lambda id: packed.tree(related[id][1]) if id in related else None,
    )
    try:
        text = body.text(child(root, "body"))
        header, footer = (_margins(packed, root, related, body, kind) for kind in ("header", "footer"))
    except RecursionError as error:
        raise packed.damaged("its elements nest too deeply") from error
    text = "\n\n".join(each for each in (header, text, footer, body.notes_text()) if each.strip())
    return Document(text, source, "docx", body.remarks())


def _notes(root: Any | None, kind: str) -> dict[tuple[str, str], Any]:
    """Return notes by (kind, id), without the lines that separate them from the text."""
    return {
        (kind, value(each, "id") or ""): each
        for each in (root if root is not None else ())
        if local(each) == kind and value(each, "type") in (None, "normal")
    }


def _margins(packed: Packed, root: Any, related: dict[str, tuple[str, str]], body: Body, kind: str) -> str:
    """Return the different headers or footers of all sections, except those with only a page number."""
    texts = []
    for reference in descendants(root, f"{kind}Reference"):
        name = related.get(value(reference, "id") or "", ("", ""))[1]
        part = packed.tree(name) if name else None
        text = " ".join(body.text(part).split()) if part is not None else ""
        if text and not text.isdigit() and text not in texts:
            texts.append(text)
    return "\n".join(f"[Page {kind}: {text}]" for text in texts)
