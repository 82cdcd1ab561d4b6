"""Show more than the text of a page's elements: form values, superscripts, formulas, list numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rapid_integrations.documents.formula import mathml
from rapid_integrations.documents.list_numbers import written
from rapid_integrations.documents.raised import lowered, raised

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

_HIDDEN_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))", re.IGNORECASE)
_STRUCK_STYLE = re.compile(r"text-decoration(?:-line)?\s*:[^;]*line-through", re.IGNORECASE)
_LIST_STYLE = re.compile(
    r"list-style(?:-type)?\s*:[^;]*?\b(lower-alpha|upper-alpha|lower-latin|upper-latin|lower-roman|upper-roman)", re.I
)
_LIST_FORMATS = {
    "a": "lowerLetter",
    "A": "upperLetter",
    "i": "lowerRoman",
    "I": "upperRoman",
    "lower-alpha": "lowerLetter",
    "lower-latin": "lowerLetter",
    "upper-alpha": "upperLetter",
    "upper-latin": "upperLetter",
    "lower-roman": "lowerRoman",
    "upper-roman": "upperRoman",
}
_WITHOUT_VALUE = ("hidden", "password", "file", "image", "submit", "reset", "button")


def show_values(page: BeautifulSoup) -> None:
    """Write into the page's text what browsers draw for its elements, and remove what they hide."""
    for element in page.find_all(_is_hidden):
        element.extract()
    for formula in page.find_all("math"):
        _replace(formula, mathml(formula))
    for drawn in page.select(".katex-html, .MathJax_Preview, .MathJax_SVG, .MathJax_CHTML"):
        if page.find("math") is None:
            drawn.extract()  # the same formula again, in pieces
    for picture in page.find_all("svg"):
        _replace(
            picture, " ".join(" ".join(text.get_text(" ").split()) for text in picture.find_all(("title", "text")))
        )
    for picture in page.find_all(("img", "area", "input")):
        alt = " ".join(str(picture.get("alt") or "").split())
        if alt and (picture.name != "input" or picture.get("type") == "image"):
            _put(picture, f"[image: {alt}]")
    for box in page.find_all(("input", "textarea", "select", "meter", "progress")):
        _show_field(box)
    for note in page.find_all("abbr"):
        if (title := " ".join(str(note.get("title") or "").split())) and title.lower() not in note.get_text().lower():
            note.append(f" ({title})")
    for reading in page.find_all("rp"):
        reading.extract()
    for reading in page.find_all("rt"):
        _replace(reading, f"({reading.get_text().strip()})")
    for struck in page.find_all(_is_struck):
        struck.name = "del"
    for caption in page.find_all(("summary", "legend", "figcaption")):
        caption.name = "p"
    for mark, write in (("sup", raised), ("sub", lowered)):
        for element in page.find_all(mark):
            _replace(element, write(element.get_text()))
    for numbered in page.find_all("ol"):
        _number(numbered)


def _replace(element: Tag, text: str) -> None:
    element.replace_with(text)


def _put(element: Tag, text: str) -> None:
    """Replace an element by a value, separated from the words around it."""
    before, after = element.previous_sibling, element.next_sibling
    apart = [
        "" if side is None or (isinstance(side, str) and side[at : at + 1 or None].isspace()) else " "
        for side, at in ((before, -1), (after, 0))
    ]
    element.replace_with(f"{apart[0]}{text}{apart[1]}")


def _is_hidden(element: Tag) -> bool:
    attributes: dict[str, Any] = element.attrs
    if "hidden" in attributes and element.name not in ("html", "body"):
        return True
    if element.name == "dialog":
        return "open" not in attributes
    return _HIDDEN_STYLE.search(str(attributes.get("style") or "")) is not None and element.name not in ("html", "body")


def _is_struck(element: Tag) -> bool:
    return element.name == "strike" or (
        element.name in ("span", "font", "i", "b", "em", "strong", "small")
        and _STRUCK_STYLE.search(str(element.get("style") or "")) is not None
    )


def _show_field(field: Tag) -> None:
    kind = str(field.get("type") or "text").lower()
    if field.name == "select":
        options = field.find_all("option")
        chosen = [each for each in options if each.has_attr("selected")]
        if not chosen and options and not field.has_attr("multiple") and not field.has_attr("size"):
            chosen = options[:1]  # what a browser shows
        words = [" ".join(str(each.get("label") or each.get_text()).split()) for each in chosen]
        _put(field, ", ".join(word for word in words if word))
    elif field.name == "textarea":
        _put(field, field.get_text().strip())
    elif field.name in ("meter", "progress"):
        if not field.get_text().strip() and field.get("value"):
            most = f" of {field['max']}" if field.get("max") else ""
            _put(field, f"{field['value']}{most}")
    elif kind in ("checkbox", "radio"):
        _put(field, "☒" if field.has_attr("checked") else "☐")
    elif kind not in _WITHOUT_VALUE and field.get("value"):
        _put(field, str(field["value"]))


def _number(numbered: Tag) -> None:
    """Write the numbers of a list that does not count 1, 2, 3 from its start."""
    style = _LIST_STYLE.search(str(numbered.get("style") or ""))
    form = _LIST_FORMATS.get(style[1].lower() if style else str(numbered.get("type") or ""), "decimal")
    items = [item for item in numbered.find_all("li", recursive=False)]
    plain = (
        form == "decimal" and not numbered.has_attr("reversed") and not any(item.has_attr("value") for item in items)
    )
    if plain:
        return
    step = -1 if numbered.has_attr("reversed") else 1
    number = _whole(numbered.get("start"), len(items) if step < 0 else 1)
    for item in items:
        number = _whole(item.get("value"), number)
        item.insert(0, f"{written(number, form)}. ")
        item.name = "div"
        number += step
    numbered.name = "div"


def _whole(text: Any, otherwise: int) -> int:
    try:
        return max(-(10**9), min(10**9, int(str(text))))
    except ValueError:
        return otherwise
