"""The lines of a prompt and what their shape says, whatever words they use.

A label is a short line that ends in a colon, or is drawn as a heading, or stands in brackets or tags, and that the
text does not repeat. Where a document's own first or last lines look like a template's, they are left outside of the
span: both models then read them, which costs little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

SIGNS = "?？؟"
EDGES = " \t\r\n\"'`*_|“”„«»"
_LABEL = re.compile(
    r"[^\w\n<>]{0,12}((?:[^\W\d_]|['’]|[A-Z]\.)[\w'’./&,-]*(?:[ \t]+[\w'’./&,()#-]+){0,6})[*_`\"'\])}】」》]{0,3}[ \t]*"
    r"([:：]|=>|->|=|\||>>)[*_`\])}】」》]{0,3}(?:(?<=：)|(?=[\s\"'`“„«「{\[(<*_A-Z]|[^\x00-\x7f]|$))"
)
_ORNAMENT = re.compile(r"[^\w?？؟]+")
_TAGS_ONLY = re.compile(
    r"(?:[ \t]*(?:</?[^\W\d][^<>\n]{0,120}>|<\|[^|\n]{1,40}\|>|\[/?[A-Za-z_][\w /.-]{0,40}\]|"
    r"\{\{?[#/]?[\w ]{1,30}\}\}?))+"
    r"[ \t]*"
)
TAG = re.compile(
    r"<\|im_start\|>\w*|<\|[^|<>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?[^\W\d][^\s<>]{0,40}(?:[ \t][^<>\n]{0,160})?>"
)
_OF_CODE = re.compile(
    r"^(?:def|class|if|for|while|else|elif|try|except|with|return|import|from|function|public|private|static)\b.*[:{(]|->|\w\(\w*\)|;$"
)
_ASKING_END = re.compile(rf"[{SIGNS}][\"'”’»」)\]*_`}}]*[ \t]*$")
_SENTENCE_GAP = re.compile(r"(?<=[.!?。！？؟])[\"'”»」)]*\s+|(?<=[。！？])")


@dataclass(frozen=True)
class Line:
    """A line of a text and what its shape says; `start` and `end` without the line break."""

    start: int
    end: int
    said: str

    @property
    def body(self) -> str:
        """The line without white space at its edges."""
        return self.said.strip()

    @property
    def blank(self) -> bool:
        """Whether nothing stands on it."""
        return not self.body

    @cached_property
    def drawn(self) -> bool:
        """Whether it is an ornament or holds only tags."""
        return bool(self.body) and bool(_ORNAMENT.fullmatch(self.body) or _TAGS_ONLY.fullmatch(self.body))

    @cached_property
    def label(self) -> re.Match[str] | None:
        """The label that it begins with, by its shape."""
        if len(self.body) < 2 or self.body[0] == "|" or "://" in self.body[:60]:
            return None
        found = _LABEL.match(self.said.lstrip())
        return found if found and len(found[1]) <= 48 else None

    @cached_property
    def heads(self) -> bool:
        """Whether it is a label that stands alone: it ends in a colon, or is drawn as a heading."""
        body = self.body
        if not body or len(body) > 160 or _ASKING_END.search(body):
            return False
        if _OF_CODE.search(body) or body.count("|") > 2:
            return False
        if body[-1] in ":：" or body.rstrip("*_`\"' ")[-1:] in (":", "："):
            return True
        if len(body) > 80 or body[-1] in ".!,;。":
            return False
        bracketed = body[0] in "[【《「〔{<(%|~=#*+_-—–═─>§▶►■●◆" and body[0:2] not in ("- ", "* ", "+ ")
        closes = body[-1] in "]】》」〕}>)%|~=#*+_-—–═─"
        heading = body.startswith("#")
        capitals = body.isupper() and len(body.split()) <= 6 and sum(map(str.isalpha, body)) >= 3
        return heading or (bracketed and closes) or capitals


def lines_of(text: str, start: int, end: int) -> list[Line]:
    """Return the lines of `text[start:end]`; the first and the last may be parts of lines."""
    found, position = [], start
    while position <= end:
        stop = text.find("\n", position, end)
        stop = end if stop < 0 else stop
        at = position
        tagged = text.find("<", position, stop) >= 0 or text.find("[", position, stop) >= 0
        for tag in TAG.finditer(text, position, stop) if tagged else ():
            for first, last in ((at, tag.start()), tag.span()):
                if text[first:last].strip():
                    found.append(Line(first, last, text[first:last]))
            at = tag.end()
        if at == position or text[at:stop].strip():
            found.append(Line(at, stop, text[at:stop]))
        position = stop + 1
    return found


def short_among(lines: list[Line]) -> float:
    """Return how short a line must be to look strange among `lines`, in characters."""
    lengths = sorted(len(line.body) for line in lines if not line.blank)
    return 0.6 * (lengths[len(lengths) // 10] if len(lengths) >= 4 else 100)


def asks(said: str) -> bool:
    """Whether a text has a question mark."""
    return any(sign in said for sign in SIGNS)


def sentences_of(query: str) -> list[str]:
    """Return the sentences of a text."""
    return [part for part in _SENTENCE_GAP.split(query) if part.strip()]


def is_repeated(text: str, name: str, most: int = 2) -> bool:
    """Whether the words of a label begin other lines of the text, too: it is the text's own."""
    name = name.strip(" :：*_#=~-")
    if not name or text.count(name) <= most:  # which is a hundred times as fast as looking where they stand
        return False
    return len(re.findall(rf"^[^\w\n]{{0,6}}{re.escape(name)}(?!\w)", text, re.MULTILINE)) > most
