"""Read the values of XFA forms from their XML. Few programs can draw the pages of such forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAMESPACE = re.compile(r"^\{[^}]*\}")
_MOST = 10_000  # values


@dataclass(frozen=True)
class FilledIn:
    """The values of an XFA form.

    Attributes:
        text: a line "caption: value" for each value, empty if there is no form.
        remarks: a remark that the file is such a form.
    """

    text: str = ""
    remarks: tuple[str, ...] = ()


def filled_in(packets: Mapping[str, bytes]) -> FilledIn:
    """Return the values of an XFA form's data, with the captions of its template.

    Args:
        packets: the form's XML parts by name.
    """
    if not packets:
        return FilledIn()
    captions = _captions(packets.get("template", b""))
    lines = []
    for name, value in _leaves(packets.get("datasets", b"")):
        lines.append(f"{captions.get(name, name)}: {value}")
    remark = "an XFA form: its values are listed behind the text, its layout is not shown"
    return FilledIn("\n".join(lines), (remark,))


def _tree(data: bytes):  # type: ignore[no-untyped-def]
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True, huge_tree=False)
    try:
        return etree.fromstring(data, parser) if data.strip() else None
    except (etree.XMLSyntaxError, ValueError):
        return None


def _local(element: object) -> str:
    tag = getattr(element, "tag", "")
    return _NAMESPACE.sub("", tag) if isinstance(tag, str) else ""


def _leaves(data: bytes) -> list[tuple[str, str]]:
    root = _tree(data)
    if root is None:
        return []
    found = []
    for element in root.iter():
        if _local(element) and not len(element) and (element.text or "").strip():
            found.append((_local(element), " ".join((element.text or "").split())))
        if len(found) >= _MOST:
            break
    return found


def _captions(data: bytes) -> dict[str, str]:
    root = _tree(data)
    captions: dict[str, str] = {}
    if root is None:
        return captions
    for field in root.iter():
        if _local(field) in ("field", "exclGroup") and field.get("name"):
            for child in field:
                if _local(child) == "caption" and (text := " ".join(" ".join(child.itertext()).split())):
                    captions.setdefault(field.get("name"), text.rstrip(":"))
    return captions
