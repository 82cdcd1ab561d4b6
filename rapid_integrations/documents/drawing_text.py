"""Read the words of drawings in Office files: descriptions of pictures, values of charts, diagrams and shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rapid_integrations.documents.packed import child, descendants, local, value


def drawing_text(element: Any, part: Callable[[str], Any | None]) -> str:
    """Return the words of a drawing, without those of its text boxes.

    Args:
        element: `w:drawing`, `w:pict` or `w:object`.
        part: gives the root of a chart's or a diagram's part by its id.
    """
    found = []
    for each in descendants(element, "docPr", "shape", "imagedata"):
        words = value(each, "descr") or value(each, "alt") or ""
        if words.strip() and words not in found:
            found.append(f"[image: {' '.join(words.split())}]")
    found += [value(each, "string") or "" for each in descendants(element, "textpath")]  # WordArt
    for each in descendants(element, "chart"):
        root = part(value(each, "id") or "")
        if root is not None:
            found.append(chart_text(root))
    for each in descendants(element, "relIds"):
        root = part(value(each, "dm") or "")
        if root is not None:
            found.append(diagram_text(root))
    return " ".join(f" {each} " for each in dict.fromkeys(found) if each).strip()


def chart_text(root: Any) -> str:
    """Return a chart's title and its values, which the file keeps beside the drawing."""
    title = next(descendants(root, "title"), None)
    words = "".join(each.text or "" for each in descendants(title, "t")) if title is not None else ""
    series = []
    for each in descendants(root, "ser"):
        name = child(each, "tx")
        label = " ".join(_values(name)) if name is not None else ""
        places, heights = (
            _values(found) if (found := next((part for part in each if local(part) in kinds), None)) is not None else []
            for kinds in (("cat", "xVal"), ("val", "yVal"))
        )
        if len(places) == len(heights):
            heights = [f"{place} {height}" for place, height in zip(places, heights, strict=True)]
        series.append(f"{label}: {', '.join(heights)}" if label else ", ".join(heights))
    return f"[chart: {'; '.join(each for each in (words, *series) if each)}]"


def diagram_text(root: Any) -> str:
    """Return the words of a diagram (SmartArt), in the order of its nodes."""
    nodes = []
    for node in descendants(root, "pt"):
        text = "".join(each.text or "" for each in descendants(node, "t")).strip()
        if text:
            nodes.append(text)
    return f"[diagram: {'; '.join(nodes)}]" if nodes else ""


def _values(element: Any) -> list[str]:
    return [" ".join((each.text or "").split()) for each in descendants(element, "v")]
