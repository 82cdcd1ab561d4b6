"""Compute the numbers that Word shows before paragraphs: "3.2.1", "(a)", "Article IV". The file does not hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from rapid_integrations.documents.list_numbers import written
from rapid_integrations.documents.packed import child, local, value

_LEVELS = 9
_BULLET = "-"


@dataclass
class _Level:
    start: int = 1
    form: str = "decimal"
    text: str = ""
    legal: bool = False
    restarts: bool = True
    style: str = ""


@dataclass
class _List:
    """The count of a list. Several `w:num` may continue one abstract list."""

    levels: dict[int, _Level] = field(default_factory=dict)
    counts: list[int | None] = field(default_factory=lambda: [None] * _LEVELS)


class Numbering:
    """Counts the numbered paragraphs of a document. Call `label` once for each, in order.

    Args:
        root: `w:numbering`, or None for a document without lists.
    """

    def __init__(self, root: Any | None) -> None:
        self._lists: dict[str, _List] = {}
        self._of: dict[str, str] = {}
        self._overrides: dict[str, dict[int, int]] = {}
        self._links: dict[str, str] = {}
        for each in root if root is not None else ():
            if local(each) == "abstractNum":
                self._add_list(each)
            elif local(each) == "num":
                self._add_number(each)

    def label(self, number: str, level: int) -> str:
        """Return the label of a list's next paragraph at a level (from 0): "-" for bullets, "" for no label."""
        counted = self._lists.get(self._of.get(number, ""))
        if counted is None or not 0 <= level < _LEVELS:
            return ""
        for place, start in self._overrides.pop(number, {}).items():
            counted.levels.setdefault(place, _Level()).start = start
            counted.counts[place] = None
        here = counted.levels.get(level, _Level(text=f"%{level + 1}."))
        for above in range(level):
            if counted.counts[above] is None:
                counted.counts[above] = counted.levels.get(above, _Level()).start
        count = counted.counts[level]
        counted.counts[level] = here.start if count is None else count + 1
        for below in range(level + 1, _LEVELS):
            if counted.levels.get(below, _Level()).restarts:
                counted.counts[below] = None
        if here.form == "bullet":
            return _BULLET
        return re.sub(r"%([1-9])", lambda at: self._written(counted, int(at[1]) - 1, here.legal), here.text).strip()

    def level_of_style(self, number: str, style: str) -> int:
        """Return the level of a list whose paragraphs have this style, or 0."""
        counted = self._lists.get(self._of.get(number, ""))
        return next((at for at, each in counted.levels.items() if each.style == style), 0) if counted else 0

    @staticmethod
    def _written(counted: _List, level: int, legal: bool) -> str:
        form = counted.levels.get(level, _Level()).form
        return written(counted.counts[level] or 0, "decimal" if legal and form != "none" else form)

    def _add_list(self, element: Any) -> None:
        name = value(element, "abstractNumId") or ""
        counted = self._lists[name] = _List()
        for each in element:
            if local(each) == "lvl":
                counted.levels[_whole(value(each, "ilvl"))] = _level(each)
            elif local(each) == "styleLink":
                self._links[value(each) or ""] = name
            elif local(each) == "numStyleLink":
                self._links[f"to {name}"] = value(each) or ""

    def _add_number(self, element: Any) -> None:
        number = value(element, "numId") or ""
        link = child(element, "abstractNumId")
        name = (value(link) or "") if link is not None else ""
        name = self._links.get(self._links.get(f"to {name}", ""), name)
        self._of[number] = name
        for each in element:
            if local(each) == "lvlOverride":
                start, level = child(each, "startOverride"), child(each, "lvl")
                place = _whole(value(each, "ilvl"))
                if level is not None and name in self._lists:
                    # Only this `w:num` has the level, so it counts separately from here.
                    own = f"{name} of {number}"
                    self._lists.setdefault(own, _List(dict(self._lists[name].levels)))
                    self._lists[own].levels[place] = _level(level)
                    self._of[number] = own
                if start is not None:
                    self._overrides.setdefault(number, {})[place] = _whole(value(start), 1)


def _level(element: Any) -> _Level:
    level = _Level()
    for each in element:
        match local(each):
            case "start":
                level.start = _whole(value(each), 1)
            case "numFmt":
                level.form = value(each) or "decimal"
            case "lvlText":
                level.text = value(each) or ""
            case "isLgl":
                level.legal = value(each) not in ("0", "false")
            case "lvlRestart":
                level.restarts = value(each) != "0"
            case "pStyle":
                level.style = value(each) or ""
    return level


def _whole(text: str | None, otherwise: int = 0) -> int:
    try:
        return max(-(10**6), min(10**6, int(text or "")))
    except ValueError:
        return otherwise
