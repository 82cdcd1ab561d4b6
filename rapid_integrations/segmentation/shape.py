"""A prompt's parts by their shape alone, whatever words name them: a bulk, short pieces around it, one that asks.

A label is a short line that ends in a colon, or is drawn as a heading, or stands in brackets or tags, and that the
text does not repeat. Where a document's own first or last lines look like a template's, they are left outside of the
span: both models then read them, which costs little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from rapid_integrations.segmentation.instructions import (
    addresses_somebody,
    begins_as_instruction,
    reads_as_instruction,
)
from rapid_integrations.segmentation.lexicon import ROLES
from rapid_integrations.segmentation.marks import role_of
from rapid_integrations.segmentation.spans import MAX_QUERY_CHARACTERS

SIGNS = "?？؟"
_HEAD = 3000  # characters
_LOST = 0.08  # share of a document that may be left to both models at either end
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
_INLINE_TAG = re.compile(r"\s*(?:<[^\W\d][^\s<>]{0,40}(?:[ \t][^<>\n]{0,160})?>|\[[A-Za-z_][\w .-]{0,40}\])")
_OPENING_TAG = re.compile(r"(?:<([^\W\d][^\s<>]{0,40})(?:[ \t][^<>\n]{0,160})?>|\[([A-Za-z_][\w .-]{0,40})\])[ \t]*$")
_TAG = re.compile(
    r"<\|im_start\|>\w*|<\|[^|<>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?[^\W\d][^\s<>]{0,40}(?:[ \t][^<>\n]{0,160})?>"
)
_VALUE = re.compile(r"[\w ]{1,20}[ \t]?[=:][ \t]?(?=[\"'“{])")
_BRACKETED = re.compile(r"\s*\[[A-Za-z][\w ]{0,24}\][:：]?[ \t]+(?=\S)")
_COMMAND = re.compile(r"\\?[a-z]{2,12}\{[^{}\n]{1,40}\}[ \t]*")
_NEXT_LABEL = re.compile(r"[\s|]*[^\W\d_]{3,16}(?: \w+){0,2}[ \t]?[:=|]")
_OF_CODE = re.compile(
    r"^(?:def|class|if|for|while|else|elif|try|except|with|return|import|from|function|public|private|static)\b.*[:{(]|->|\w\(\w*\)|;$"
)
_ASKING_END = re.compile(rf"[{SIGNS}][\"'”’»」)\]*_`}}]*[ \t]*$")
_LEAD_WORDS = (
    r"who|whom|whose|what|when|where|which|why|how|is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|"
    r"may|might|shall|am|in|on|at|by|for|from|to|of|the|a|an|this|that|these|i|we|he|she|it|they|if|name|list|tell|"
    r"wer|wen|wem|wessen|was|wann|wo|woher|wohin|welche[rsmn]?|warum|wieso|weshalb|wie|ist|sind|war|hat|haben|kann|wird|in|"
    r"qui|que|quoi|quand|où|comment|combien|pourquoi|quel|quelle|quels|quelles|est|à|a|dans|"
    r"quién|quiénes|qué|cuándo|cuánto|cuántos|dónde|cómo|cuál|cuáles|por|chi|che|cosa|quando|dove|come|perché|quale|quanti|"
    r"quem|qual|quais|onde|como|quanto|wie|wat|wanneer|waar|welke|waarom|hoe|hoeveel"
)
_CAPITAL_LEAD = re.compile(
    rf"(?:{'|'.join(sorted({w.capitalize() for w in _LEAD_WORDS.split('|')}, key=len)[::-1])})\b"
)
_SENTENCE_GAP = re.compile(r"(?<=[.!?。！？؟])[\"'”»」)]*\s+|(?<=[。！？])")
_LEAD_IN = re.compile(r"([,，:：;–—-]|\.\.\.|…)[ \t]+(?=\S)|[:：，,](?=[^\x00-\x7f])")
_ENUMERATOR = re.compile(r"(?:[^\w¿¡\"'“„«「(<\[]{1,6}[ \t]*)?(?:(?:\d{1,2}|[a-zA-Z])[.)][ \t]+)?")
_ITEM = re.compile(r"\s*(?:[-*+•]\s|\|)")
_NUMBERED = re.compile(r"\s*\(?(?:\d{1,2}|[a-h])[.)]\s")
_COLON = re.compile(r"[:：](?:\s|[^\x00-\x7f])")
_QUOTED = re.compile(rf"[\"“„«「]([^\"“”„«»「」\n]{{4,}}[{SIGNS}])(?:[\"”“»」]|$)")
_INTRODUCED = re.compile(r"([^:：.!?。！？\n]{1,24})[:：]\s*(?=\S)")
_AROUND_A_NAME = " \t:：#*_=~-<>[]【】《》「」()|`0123456789."
_LONGEST_TITLE = 60
_LONGEST_REQUEST = 200
_LONGEST_RULE = 120
_LONGEST = 600  # characters of a question
_BEGINS_ANEW = re.compile(r"\s*(?:[A-ZÀ-ÞΑ-ЯЁ¿\"“„«]|[^\x00-\u024f])")
_EDGES = " \t\r\n\"'`*_|“”„«»"
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_OTHER = re.compile(r"[\u0370-\u1fff\u2e80-\uffef]")


@dataclass(frozen=True)
class Line:
    """A line of a text and what its shape says; `start` and `end` without the line break."""

    start: int
    end: int
    said: str

    @cached_property
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
        for tag in _TAG.finditer(text, position, stop):
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


def without_lead_in(query: str) -> str:
    """Return a question without the clause before it: "According to the text, ".

    What a program fills in begins with a capital, or in another script, or with an inverted question mark.
    """
    if "¿" in query:
        at = query.index("¿")
        before = query[:at].strip()
        return query[at:] if not before or before[-1] in ",:：;—–-.!" else query
    best = None
    for found in _LEAD_IN.finditer(query[:220]):
        head, rest = query[: found.start()], query[found.end() :]
        if not asks(rest) or asks(head):
            break
        script = bool(_LATIN.search(head)) and not _OTHER.search(head) and bool(_OTHER.match(rest.lstrip(_EDGES)))
        script = script or (bool(_OTHER.search(head)) and bool(_LATIN.match(rest)) and not _LATIN.search(head))
        if script or _CAPITAL_LEAD.match(rest.lstrip(_EDGES)):
            best = rest
            if found[1] and found[1] in ",，":
                break
    if best is not None:
        return best.lstrip(_EDGES)
    return query


def sentences_of(query: str) -> list[str]:
    """Return the sentences of a text."""
    return [part for part in _SENTENCE_GAP.split(query) if part.strip()]


def settled(query: str, labelled: bool) -> str | None:
    """Return a question without what a template says around it, None where that is doubtful.

    Args:
        query: what stands where the question is.
        labelled: whether a label or tag begins it; if not, a clause before it may be the template's.
    """
    query = _unwrapped(query)
    if (quoted := _QUOTED.search(query)) and not asks(query[: quoted.start()] + query[quoted.end() :]):
        query = quoted[1]
    elif (introduced := _INTRODUCED.match(query)) and ROLES["question"].search(introduced[1]):
        query = query[introduced.end() :].strip(_EDGES)
    if not any(character.isalnum() for character in query) or _TAG.search(query):
        return None
    if not asks(query):
        several = "\n" in query or len(sentences_of(query)) > 1 or query[-1] in ":：="
        return None if several or not labelled or len(query) > MAX_QUERY_CHARACTERS // 4 else query
    lines = query.split("\n")
    last = max(number for number, line in enumerate(lines) if asks(line))
    if sum(1 for line in lines if asks(line)) > 1 or any(_NUMBERED.match(line) for line in lines[1:]):
        return None
    lines = lines[: last + 1]
    if any(_ITEM.match(line) for line in lines[:-1]):
        return None
    first = max((number for number, line in enumerate(lines) if _BRACKETED.match(line)), default=0)
    if opened := _BRACKETED.match(lines[first]):
        lines[first] = lines[first][opened.end() :]
    for number, line in enumerate(lines[:-1]):
        if number < first:
            continue
        lone = Line(0, len(line), line)
        if (
            lone.drawn
            or lone.heads
            or line.rstrip()[-2:] in ("**", "__", "]]")
            or reads_as_instruction(line)
            or (not labelled and not line.strip())
        ):
            first = number + 1
        elif len(line) <= 40 and line.rstrip()[-1:] in (",", "，"):
            first = number + 1  # a letter's greeting
        elif line.strip() and line.strip()[-1].isalnum() and len(line) <= 60 and _BEGINS_ANEW.match(lines[number + 1]):
            first = number + 1  # a heading: the line below it begins anew
    query = "\n".join(lines[first:]).strip(_EDGES)
    at = max(query.rfind(sign) for sign in SIGNS) + 1
    rest = query[at:].strip(_EDGES + ")]}.")
    told = query[-1:] in ".!。" and len(rest) > 12 and len(sentences_of(rest)) == 1
    if labelled and told and not (_NEXT_LABEL.match(rest) or _instructs(rest, False)):
        at = len(query)
    elif any(character.isalnum() for character in rest):
        instructs = begins_as_instruction(rest) or reads_as_instruction(rest) or addresses_somebody(rest)
        if not (instructs or _NEXT_LABEL.match(rest) or len(rest.split()) <= 3):
            return None
    query = re.sub(r"([?？؟])\1+$", r"\1", query[:at])
    opened = _ENUMERATOR.match(query)
    query = query[opened.end() :] if opened and (not labelled or query[0].isdigit()) else query
    query = query if labelled else without_lead_in(query)
    said = sentences_of(query)
    while len(said) > 1 and not asks(said[0]) and _instructs(said[0], labelled):
        query = query[query.index(said[0]) + len(said[0]) :].lstrip(_EDGES)
        said = said[1:]
    first = min((query.find(sign) for sign in SIGNS if sign in query), default=-1)
    if any(sign in query[first + 1 :] for sign in SIGNS) and (not labelled or _COLON.search(query, first)):
        return None
    above = query.split("\n")[:-1]
    if not labelled and any(line.strip()[-1:] not in (*".!,;:。", "") for line in above):
        return None
    if query.rstrip("?: ").endswith("the following"):
        return None  # what is asked comes below it
    if not labelled and (len(sentences_of(query)) > 1 or "\n" in query):
        return None
    if len(sentences_of(query)) > 3 or re.search(r"\n\s*\n", query) or len(query) > _LONGEST:
        return None
    return query.strip(_EDGES) or None


def _instructs(sentence: str, labelled: bool) -> bool:
    if labelled:
        return begins_as_instruction(sentence) and reads_as_instruction(sentence)
    return begins_as_instruction(sentence) or reads_as_instruction(sentence)


def _unwrapped(query: str) -> str:
    """Return a value without its key, quotation marks and brackets: "text = 'Who ...?'"."""
    query = query.strip(_EDGES)
    for pattern in (_VALUE, _COMMAND):
        if value := pattern.match(query):
            query = query[value.end() :]
    if query[:1] == "{" and query[-1:] == "}":
        query = query[1:-1]
    return query.strip(_EDGES)


@dataclass(frozen=True)
class Piece:
    """A question found by its shape: where its own lines begin and end, and what shows that it is one."""

    query: str
    start: int
    end: int
    labelled: bool
    named: bool


def question_piece(text: str, lines: list[Line], behind: bool) -> Piece | None:
    """Return the one piece among `lines` that asks, with a label of its own or apart from the others.

    Args:
        text: that the lines are of.
        lines: the head or the tail of it.
        behind: whether they are the tail; then the last one counts, in a head the first.
    """
    order = range(len(lines) - 1, -1, -1) if behind else range(len(lines))
    for at in order:
        line = lines[at]
        if line.blank or line.drawn or not asks(line.body):
            continue
        piece = _piece(text, lines, at)
        if piece is None and behind:
            return None  # the last line that asks is one of a text
        if piece is not None:
            return (_labelled_above(text, lines, at) or piece) if behind and not piece.labelled else piece
    for at in order:
        line = lines[at]
        if (piece := _request(text, lines, at)) is not None:
            return piece
        if len(line.body) > _LONGEST_RULE and not (line.heads or reads_as_instruction(line.body)):
            return None  # a line of the document
    return None


def _request(text: str, lines: list[Line], at: int) -> Piece | None:
    """Return what stands behind or below a label that names a question, though it has no question mark."""
    line = lines[at]
    if line.blank or line.drawn or is_repeated(text, line.body):
        return None
    if line.label is not None and (rest := line.said.lstrip()[line.label.end() :].strip(_EDGES)):
        name, first, last = line.label[1], line, line
    else:
        above = [each for each in lines[max(0, at - 4) : at] if not each.blank]
        if above and above[-1].drawn and not _is_an_opening_tag(above[-1]):
            above.pop()
        if not above or len(above[-1].body) > _LONGEST_TITLE:
            return None
        rest, name, first, last = line.body, above[-1].body, above[-1], line
        below = lines[at + 1 : at + 2]
        if below and not (below[0].blank or below[0].drawn or below[0].heads):
            return None
        if not (above[-1].heads or _is_an_opening_tag(above[-1]) or _is_underlined(lines, above[-1])):
            return None
    if role_of(name.strip(_AROUND_A_NAME)) != "question" or is_repeated(text, name):
        return None
    if len(rest) > _LONGEST_REQUEST or len(sentences_of(rest)) > 2 or rest[0] == "|" or rest[-1] in ":：":
        return None
    if reads_as_instruction(rest):
        return None
    return Piece(rest, first.start, last.end, True, True)


def _is_underlined(lines: list[Line], line: Line) -> bool:
    at = lines.index(line)
    return at + 1 < len(lines) and lines[at + 1].drawn and lines[at + 1].body[0] in "-=~"


def _labelled_above(text: str, lines: list[Line], at: int) -> Piece | None:
    """Return a question with a label of its own a few lines above one without: "Question: ...", "Is it known?"."""
    for index in range(at - 1, max(-1, at - 8), -1):
        if asks(lines[index].body):
            piece = _piece(text, lines, index)
            return piece if piece is not None and piece.labelled else None
    return None


def _piece(text: str, lines: list[Line], at: int) -> Piece | None:
    line = lines[at]
    label = line.label
    if label is not None and not asks(label[0]):
        own = line.start + len(line.said) - len(line.said.lstrip())
        rest = line.said.lstrip()[label.end() :]
        named = bool(ROLES["question"].search(label[1]))
        if is_repeated(text, label[1]) or (not named and _is_in_a_dialogue(lines, at)):
            return None
        if asks(rest) and len(rest) <= 600:
            query = settled(re.sub(r"</?[^\s<>]+>", "", rest), True)
            return Piece(query, own, line.end, True, named) if query else None
    first = at
    while first > 0 and not (lines[first - 1].blank or lines[first - 1].drawn or lines[first - 1].heads):
        above = lines[first - 1]
        if at - first >= 3 or len(above.body) > 300 or above.label or begins_as_instruction(above.body):
            break
        first -= 1
    upper = lines[first - 1] if first > 0 else None
    before = next((each for each in reversed(lines[:first]) if not each.blank), None)
    headed = before is not None and (before.heads or _is_an_opening_tag(before)) and not is_repeated(text, before.body)
    inline = _INLINE_TAG.match(lines[first].said)
    query = text[lines[first].start : line.end]
    if inline:
        query = re.sub(r"\s*(?:</?[^\W\d][^<>\n]{0,200}>|\[/?[A-Za-z_][\w .-]{0,40}\])\s*", "", query)
    if len(query) > 700:
        return None
    labelled = bool(headed or inline)
    apart = upper is None or upper.blank or upper.drawn or upper.heads
    if not labelled and not apart and not begins_as_instruction(upper.body if upper else ""):
        return None
    found = settled(query, labelled and not begins_as_instruction(query))
    if found is None or len(sentences_of(found)) > 4:
        return None
    start = before.start if headed and before is not None else lines[first].start
    name = before.body if headed and before is not None else lines[first].body[:40]
    named = labelled and bool(ROLES["question"].search(name))
    return Piece(found, start, line.end, labelled, named)


def _is_in_a_dialogue(lines: list[Line], at: int) -> bool:
    """Whether a line right before or behind a labelled one has a label of its own, too."""
    beside = [lines[index] for index in (at - 1, at + 1) if 0 <= index < len(lines)]
    return any(line.label is not None and not line.heads for line in beside)


def _is_an_opening_tag(line: Line) -> bool:
    return bool(_OPENING_TAG.match(line.body))


def is_repeated(text: str, name: str, most: int = 2) -> bool:
    """Whether the words of a label begin other lines of the text, too: it is the text's own."""
    name = name.strip(" :：*_#=~-")
    return bool(name) and len(re.findall(rf"^[^\w\n]{{0,6}}{re.escape(name)}(?!\w)", text, re.MULTILINE)) > most
