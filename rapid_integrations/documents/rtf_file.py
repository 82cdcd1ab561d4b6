"""Read RTF: the text without its layout, with notes, comments, boxes and superscripts in place."""

from __future__ import annotations

import re
from collections import Counter

from rapid_integrations.documents.document import Document
from rapid_integrations.documents.raised import lowered, raised
from rapid_integrations.errors import DocumentError, MissingExtraError

# Replacements for groups that the library leaves out, or reads although they are hidden.
_GROUPS = re.compile(
    r"\{\s*(?:\\\*)?\s*\\(footnote|annotation|header[lrf]?|footer[lrf]?|shptxt|formfield|deleted|v)(?![a-z0-9])\s?"
)
_LEVELS = (
    (re.compile(r"\{\\super(?![a-z])\s?([^{}\\]*)\}|\\super(?![a-z])\s?([^{}\\]+)\\nosupersub(?![a-z])"), raised),
    (re.compile(r"\{\\sub(?![a-z])\s?([^{}\\]*)\}|\\sub(?![a-z])\s?([^{}\\]+)\\nosupersub(?![a-z])"), lowered),
)
_MOST_GROUPS = 100_000


def read_rtf(data: bytes, source: str) -> Document:
    """Return the text of an RTF file. `|` separates the cells of tables, and pictures are left out.

    Raises:
        DocumentError: the file is damaged.
        MissingExtraError: the reader is not installed.
    """
    try:
        from striprtf.striprtf import rtf_to_text
    except ImportError:
        raise MissingExtraError(feature=f"Reading {source}", extra="documents") from None
    left_out: Counter[str] = Counter()
    try:
        rtf = _rewritten(data.decode("cp1252", "replace"), left_out)
        text = str(rtf_to_text(rtf, errors="replace"))
    except Exception as error:  # the library raises many types of errors for damaged files
        raise DocumentError(source, f"is a damaged RTF file: {error or type(error).__name__}") from error
    left_out["picture"] = data.count(b"\\pict")
    remarks = tuple(f"{count:,} {what}{'s' * (count > 1)} left out" for what, count in left_out.items() if count)
    return Document(text.replace("\0", "").strip(), source, "rtf", remarks)


def _rewritten(rtf: str, left_out: Counter[str]) -> str:
    """Return RTF in which everything visible is plain text."""
    for pattern, write in _LEVELS:
        marks = {found[0]: _escaped(write(found[1] or found[2] or "")) for found in pattern.finditer(rtf)}
        rtf = pattern.sub(lambda found, marks=marks: marks[found[0]], rtf)  # type: ignore[misc]
    pieces, done = [], 0
    behind: list[str] = []
    for _ in range(_MOST_GROUPS):
        found = _GROUPS.search(rtf, done)
        if found is None:
            break
        end = _end_of_group(rtf, found.start())
        inner = rtf[found.end() : end - 1]
        pieces.append(rtf[done : found.start()])
        done = end
        match found[1]:
            case "footnote" | "annotation":
                words = "Footnote" if found[1] == "footnote" else "Comment"
                pieces.append(f"{{ [{words}: {inner}]}}")
            case "shptxt":
                behind.append(f"\\par {{{inner}}}")
            case "formfield":
                box = re.search(r"\\fftype1(?!\d)", inner)
                ticked = re.search(r"\\ffres1(?!\d)", inner) or (
                    re.search(r"\\ffdefres1(?!\d)", inner) and not re.search(r"\\ffres0(?!\d)", inner)
                )
                if box:
                    pieces.append(f"}}{{\\u{0x2612 if ticked else 0x2610}?}}{{")
            case "deleted":
                left_out["tracked deletion"] += 1
            case "v":
                left_out["passage of hidden text"] += 1
            case where:
                behind.append(f"\\par {{[Page {where[:6]}: {inner}]}}")
    rtf = "".join((*pieces, rtf[done:]))
    last = rtf.rfind("}")
    return rtf if last < 0 else f"{rtf[:last]}{''.join(behind)}{rtf[last:]}"


def _end_of_group(rtf: str, start: int) -> int:
    """Return the offset after the brace that closes the group at `start`."""
    depth = 0
    for found in re.compile(r"\\.|[{}]", re.DOTALL).finditer(rtf, start):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if not depth:
            return found.end()
    return len(rtf)


def _escaped(text: str) -> str:
    return "".join(f"\\{each}" if each in "\\{}" else each if each.isascii() else f"\\u{ord(each)}?" for each in text)
