"""Read a Word file's paragraph styles: headings, and lists that paragraphs belong to by their style."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rapid_integrations.documents.packed import child, is_on, local, value

_DEEPEST = 20  # maximum chain of styles that are based on others


@dataclass(frozen=True)
class _Style:
    name: str = ""
    based_on: str = ""
    outline: int | None = None
    number: str | None = None
    level: int | None = None
    raised: str | None = None
    hidden: bool | None = None
    struck: bool | None = None


@dataclass(frozen=True)
class Characters:
    """The effect of a style on characters: "superscript" or "subscript", hidden, struck through."""

    raised: str = ""
    hidden: bool = False
    struck: bool = False


class Styles:
    """Args:
    root: `w:styles`, or None for a document without styles.
    """

    def __init__(self, root: Any | None) -> None:
        self._styles = {value(each, "styleId") or "": _style(each) for each in (root if root is not None else ())}

    def heading(self, style: str) -> int:
        """Return the level of a heading, from 1, or 0 for other paragraphs."""
        for each in self._chain(style):
            if each.outline is not None:
                return each.outline + 1 if each.outline < 6 else 0
            if found := re.fullmatch(r"heading ([1-6])", each.name.lower()):
                return int(found[1])
            if each.name.lower() == "title":
                return 1
        found = re.fullmatch(r"heading ?([1-6])", style.lower())
        return int(found[1]) if found else 0

    def characters(self, style: str) -> Characters:
        """Return the effect of a character style, or of the style that it is based on."""
        chain = self._chain(style)
        return Characters(
            next((each.raised for each in chain if each.raised is not None), ""),
            next((each.hidden for each in chain if each.hidden is not None), False),
            next((each.struck for each in chain if each.struck is not None), False),
        )

    def list_of(self, style: str) -> tuple[str | None, int | None, str]:
        """Return list and level of a style's paragraphs (or None), and the style that defines them."""
        name = style
        for _ in range(_DEEPEST):
            each = self._styles.get(name)
            if each is None:
                break
            if each.number is not None:
                return each.number, each.level, name
            name = each.based_on
        return None, None, ""

    def _chain(self, style: str) -> list[_Style]:
        chain: list[_Style] = []
        while style in self._styles and len(chain) < _DEEPEST:
            chain.append(self._styles[style])
            style = chain[-1].based_on
        return chain


def _style(element: Any) -> _Style:
    if local(element) != "style":
        return _Style()

    def at(*path: str) -> str | None:
        found = child(element, *path)
        return None if found is None else value(found)

    def whole(text: str | None) -> int | None:
        return int(text) if text and text.isdecimal() else None

    def switch(*names: str) -> bool | None:
        found = [each for name in names if (each := child(element, "rPr", name)) is not None]
        return any(map(is_on, found)) if found else None

    return _Style(
        at("name") or "",
        at("basedOn") or "",
        whole(at("pPr", "outlineLvl")),
        at("pPr", "numPr", "numId"),
        whole(at("pPr", "numPr", "ilvl")),
        at("rPr", "vertAlign"),
        switch("vanish"),
        switch("strike", "dstrike"),
    )
