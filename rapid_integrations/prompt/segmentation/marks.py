"""Marks: what templates write around the parts of a prompt, and documents now and then, too.

    label   "Context:", "## Frage", "**Kontext:**", "【资料】", "[QUESTION]", "=== DOCUMENTS ==="; a role and a style
    fence   a line of dashes, equals signs or the like; three quotes, backticks or ">"
    open, close   <context>, </context>, [/CONTEXT], --- BEGIN DOCUMENT ---

Only the beginning of a line is looked at (tags: everything), so that finding them all is linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from rapid_integrations.prompt.segmentation.instructions import addresses_somebody, begins_as_instruction
from rapid_integrations.prompt.segmentation.lexicon import BACKWARD, announces_context
from rapid_integrations.prompt.segmentation.role_words import ROLES
from rapid_integrations.prompt.segmentation.roles import TRIM, role_of

_HEAD = 200  # characters of a line that may hold a label
_LONGEST_NAME = 80
_MOST_WORDS = 6  # of a label with its value on the same line
_MOST_WORDS_ALONE = 14  # of a label that ends its line: "Here are the relevant documents for the context:"
_REQUEST_WORDS = 24

CONTROL = re.compile(r"<\|[^|<>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>(?:user|model)?")
_FENCE = re.compile(r"(?:(--++|==++|([_*~#+\"'><])\2{2,}+)|(`{3,}|~{3,})[ \t]*([\w+-]{0,20}))[ \t]*$")
_QUOTES = re.compile(r"[ \t]*(\"{3}|'{3}|`{3}|>{3})[ \t]*([\w+-]{0,20})[ \t]*$")
_TAG = re.compile(r"(?<!<)<(/?)([^\W\d][\w.:-]{0,40})((?:[ \t][^<>\n]{0,200})?)>(?!>)|\[(/)([^\W\d][\w .-]{0,40})\]")
_DECORATION = re.compile(
    r"(?:[^\w\s<>\"'`]++[ \t]*+|>++[ \t]++|<<++[ \t]*+){0,3}+(?:\d{1,2}[.)][ \t]++)?(?:[^\w\s<\"'`]{1,3}[ \t]*+)?"
)
_BULLET = re.compile(r"[-*+•–·◦▪][ \t]+")
_CLOSING = re.compile(r"(?:[ \t]?>>+|[ \t]?[*_#=~\-\]】》」〕|:])*+")
_DASHED = re.compile(r"([^\W\d_]{4,20}) [-–—](?: |$)")
_BEGINS = re.compile(
    r"(?:begin|start|beginn|anfang|début|debut|inicio|início|inizio|начало|开始)(?:ning)?\b|开始", re.I
)
_ENDS = re.compile(r"(?:end|ende|fin|fine|fim|einde|конец|koniec)\b|结束", re.I)
_HEREDOC = re.compile(r"([A-Z][A-Z_ ]{2,30})>{2,}")
_BIDS = re.compile(
    r"(?:answer|respond|reply|antworte\w*|beantworte\w*|respond[ea]|répond\w+|rispondi|antwoord|beantwoord|ответь\w*)"
    r"(?: (?:it|this|the user|me|him|her))?$",
    re.IGNORECASE,
)
_OF = re.compile(r"^(?:\s*[:_-]?\s*)(?:of|der|des|de|du|di|do|del|van)?\b(?:\s+the\b)?\s*", re.I)
_SENTENCE_END = re.compile(r"[.!?;](?:\s|$)|[。！？；]")
# A quotation at the end of a label's words: 'End with "Final answer: ..."' speaks of a label, and is none.
_QUOTATION = re.compile(r"[\s({\[][\"'`“„«「][ \t\u00a0]?\w[^\"'`“”»」]*[\"'`”»」]?$")
_SENTENCE_BREAK = re.compile(rf"\n|{_SENTENCE_END.pattern}")
_BEFORE = 400  # characters of a line before a label within it


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark: `text[start:end]` is the mark itself with the indentation before it.

    Attributes:
        kind: "label", "fence", "open" or "close".
        role: "context", "question", "answer", "instruction", "history", "example", "request" (a question that an
            instruction announces: "Answer this question: ..."), or "" (a fence, another label).
        name: the label's words or the tag's name in lower case, the fence's characters.
        style: what a label is decorated with.
        alone: whether nothing else stands on the line (before a tag: on its side that faces outwards).
    """

    kind: str
    role: str
    start: int
    end: int
    name: str
    style: str = ""
    alone: bool = True


def find_marks(text: str) -> list[Mark]:
    """Return all marks of `text` in order; linear in its length."""
    found = [mark for match in _TAG.finditer(text) if (mark := _tag(text, match))]
    members = _members(text)
    position, size = 0, len(text)
    controlled = "<|" in text or "[INST]" in text or "<start_of_turn>" in text
    while position < size:
        end = text.find("\n", position)
        end = size if end < 0 else end
        if end > position + 1 or (end > position and not text[position].isspace()):
            found += _of_line(text, position, end, controlled)
        position = end + 1
    if members:
        found = [mark for mark in found if mark.kind != "label"] + members
    return _as_alpaca(_underlined(text, sorted(found, key=lambda mark: (mark.start, mark.end))))


def _underlined(text: str, marks: list[Mark]) -> list[Mark]:
    """Return the marks with a line of dashes below a heading made a part of the heading."""
    kept: list[Mark] = []
    for mark in marks:
        above = kept[-1] if kept else None
        if (
            mark.kind == "fence"
            and mark.name[0] in "-=~"
            and above is not None
            and above.kind == "label"
            and above.alone
            and above.role
            and text[above.end - 1] not in ":："
            and not text[above.end : mark.start].strip()
            and mark.start - above.end < 4
        ):
            kept[-1] = replace(above, end=mark.end, style=above.style + "_")
        else:
            kept.append(mark)
    return kept


def _members(text: str) -> list[Mark]:
    """Return the keys of a prompt that is one JSON object, as labels of their values."""
    if text.lstrip()[:1] != "{" or text.rstrip()[-1:] != "}":
        return []
    found = []
    for match in _MEMBER.finditer(text):
        role = role_of(match[1].replace("_", " "))
        if role in ("context", "question", "answer", "instruction", "history"):
            found.append(Mark("label", role, match.start(), match.end(), match[1].casefold(), '"', False))
    return found


def _as_alpaca(marks: list[Mark]) -> list[Mark]:
    """Return the marks with an "Instruction" above an "Input" read as Alpaca has it: what is asked, and of what."""
    labels = [mark for mark in marks if mark.kind == "label" and "#" in mark.style]
    for above, below in zip(labels, labels[1:], strict=False):
        if above.name == "instruction" and below.name == "input":
            roles = {above.start: "question", below.start: "context"}
            return [replace(mark, role=roles.get(mark.start, mark.role)) for mark in marks]
    return marks


def _of_line(text: str, start: int, end: int, controlled: bool) -> list[Mark]:
    head = text[start : min(end, start + _HEAD)]
    if controlled and (tokens := list(CONTROL.finditer(head))):
        first, last = start + tokens[0].start(), start + tokens[-1].end()
        return [*_of_line(text, start, first, False), *_of_line(text, last, end, False)]
    body = head.lstrip(" \t")
    if not body.strip():
        return []
    if body[0].isalpha() and ":" not in body and "：" not in body and " - " not in body[:24] and not body[:3].isupper():
        return []
    if body.startswith("<!--"):
        return _comment(start + len(head) - len(body), end, body)
    begin = start + len(head) - len(body)
    whole = len(head) == end - start
    initial = body[0]
    if whole and initial in "-=_*~#+\"'`><" and (fence := _FENCE.match(body.rstrip())):
        drawn = fence[1] or fence[3]
        name = drawn[:3] if initial in "\"'`~><" else drawn
        return [Mark("fence", "", begin, end, name, fence[4] or "")]
    if initial == "<" and not body.startswith("<<"):
        return []
    mark = _label(text, begin, end, body, whole)
    if mark is None:
        return []
    quotes = _QUOTES.match(text[mark.end : end].rstrip("\r")) if end - mark.end < 40 else None
    if quotes:
        return [mark, Mark("fence", "", mark.end, end, quotes[1], quotes[2])]
    return [mark]


def _comment(begin: int, end: int, body: str) -> list[Mark]:
    """Return the mark of <!-- context start -->, <!-- end of context --> and their like."""
    words = body.strip()[4:].removesuffix("-->").strip().casefold()
    for kind, pattern in (("open", _BEGINS), ("close", _ENDS)):
        left = [
            word for word in re.split(r"[\s:_-]+", words) if not pattern.fullmatch(word) and word not in ("of", "the")
        ]
        if len(left) < len(words.split()) <= 4 and (role := role_of(" ".join(left))) in ("context", "question"):
            return [Mark(kind, role, begin, end, f"{' '.join(left)} !", "<!")]
    return []


def _label(text: str, begin: int, end: int, body: str, whole: bool) -> Mark | None:
    decoration = _DECORATION.match(body)
    deco = decoration[0] if decoration else ""
    if _BULLET.match(body) and not deco[2:].strip():
        return None  # a list's item: instructions are lists, and name what they are about
    if "/" in deco:
        return None  # [/CONTEXT] closes
    rest = body[len(deco) :]
    style = re.sub(r"[\s\w]", "", deco)
    colon = min((at for at in (rest.find(":"), rest.find("：")) if at >= 0), default=-1)
    name = rest[:colon] if colon >= 0 else ""
    if name and (rest[colon + 1 : colon + 3] == "//" or _QUOTATION.search(name)):
        return None  # an address, or a label that is spoken of
    if 0 < len(name) <= 2 * _LONGEST_NAME and not _SENTENCE_END.search(name.rstrip(TRIM)):
        offset = len(deco) + colon + 1
        closing = _CLOSING.match(body, offset)
        offset = closing.end() if closing else offset
        alone = whole and not body[offset:].strip(" \t\r\"'`")
        if mark := _classified(begin, begin + offset, name.strip(TRIM), style, alone):
            return mark
    elif name and whole and not rest[colon + 1 :].strip() and announces_context(_SENTENCE_END.split(name)[-1]):
        return Mark("label", "context", begin, end, _SENTENCE_END.split(name)[-1].strip().casefold(), style)
    line = rest.rstrip(" \t\r")
    bracket = {"[": "]", "【": "】", "《": "》", "「": "」", "〔": "〕"}.get(style[:1], "")
    if bracket and (at := line.find(bracket)) > 0 and at <= _LONGEST_NAME:
        after = len(deco) + at + len(bracket)
        closing = _CLOSING.match(body, after)
        after = closing.end() if closing else after
        alone = whole and not body[after:].strip()
        return _classified(begin, begin + after, line[:at].strip(TRIM), style[:1], alone)
    if not whole:
        return None
    if (dashed := _DASHED.match(line)) and role_of(dashed[1]) in ("context", "question", "answer"):
        return _classified(begin, begin + len(deco) + dashed.end(), dashed[1], style, len(line) == dashed.end())
    if len(line) <= _LONGEST_NAME and (_BEGINS.match(line.casefold()) or _ENDS.match(line.casefold())):
        return _classified(begin, end, line.strip(TRIM + "."), style or "A", True)
    if len(line) > _LONGEST_NAME or _SENTENCE_END.search(line):
        return None
    name = line.strip(TRIM)
    capitals = name.isupper() and len(name.split()) <= 4
    if lifted := None if style else _HEREDOC.fullmatch(body.strip()):
        if role := role_of(lifted[1]):
            return Mark("close", role, begin, end, f"{lifted[1].casefold()} <", "<")
    if style[:2] == "<<" and line == name and (role := role_of(name)):
        return Mark("open", role, begin, end, f"{name.casefold()} <", "<")
    ornate = set(style) & set("*_=~-|<") and line != name and not line[-1:].isalnum()
    if "#" in style or ornate or (capitals and role_of(name)):
        return _classified(begin, end, name, style or "A", True)
    return None


def _classified(start: int, end: int, name: str, style: str, alone: bool) -> Mark | None:
    """Return the mark of a label with this name, None if it is none."""
    words = len(name.split())
    if not name or len(name) > 2 * _LONGEST_NAME or words > _REQUEST_WORDS:
        return None
    lower = name.casefold()
    if style and (bound := _BEGINS.match(lower) or _ENDS.match(lower)):
        inner = _OF.sub("", lower[bound.end() :])
        if (role := role_of(inner)) in ("context", "question", "history", "example"):
            return Mark(
                "close" if _ENDS.match(lower) else "open", role, start, end, f"{inner} {style[:1]}", style, alone
            )
    role = role_of(name)
    if words > 3 and alone and not BACKWARD.search(name):
        last = max((match.end(), kind) for kind in ("context", "question") for match in _found(kind, name))
        if last[1] == "context" and role != "answer":
            return Mark("label", "context", start, end, lower, style, alone)
    if role == "answer" and not alone and begins_as_instruction(name) and _names_a_label(name):
        return None
    if role == "answer" and words > 2 and begins_as_instruction(name) and _BIDS.search(name):
        return Mark("label", "request", start, end, lower, style, alone)
    if role == "answer" and words > 2 and not alone and begins_as_instruction(name):
        if not addresses_somebody(name.split()[0]):
            return None  # "Start with Answer: ..."
    if role == "question" and words > 1 and begins_as_instruction(name):
        return Mark("label", "request", start, end, lower, style, alone)
    most = _MOST_WORDS_ALONE if alone else _MOST_WORDS
    if words > 4 and announces_context(name):
        return Mark("label", "context", start, end, lower, style, alone)
    if role == "question" and (words > 4 or len(name) > 14 and words < 3 and not name.isascii()):
        return Mark("label", "request", start, end, lower, style, alone)
    if words > 4 and ROLES["question"].search(name):
        return Mark("label", "request", start, end, lower, style, alone)
    if words > most or len(name) > _LONGEST_NAME:
        return None
    if (
        role == "context"
        and not style
        and not alone
        and (("_" in name) or (words > 1 and name.islower() and name.isascii()))
    ):
        return None  # "read_contract: ..." is an item of a list of tools
    return Mark("label", role, start, end, lower, style, alone) if role else None


def _names_a_label(name: str) -> bool:
    """Whether only some words behind the first one begin with a capital: "Start with Answer"."""
    behind = [word.strip(TRIM)[:1] for word in name.split()[1:]]
    return name.split()[-1].strip(TRIM)[:1].isupper() and any(initial.islower() for initial in behind)


def _found(role: str, name: str) -> list[re.Match[str]]:
    return list(ROLES[role].finditer(name)) or list(re.finditer("^", name))


def _tag(text: str, match: re.Match[str]) -> Mark | None:
    closing, name = match[1] or match[4] or "", match[2] or match[5]
    role = _role_of_tag(name)
    if not role or (match[3] or "").endswith("/"):
        return None
    before = text[max(0, match.start() - 40) : match.start()]
    after = text[match.end() : match.end() + 40]
    outside = after if closing else before
    inside = before if closing else after
    line = outside.split("\n", 1)[0] if closing else outside.rsplit("\n", 1)[-1]
    alone = not CONTROL.sub("", line).strip() or (not closing and line.rstrip()[-1:] in ":：")
    if not closing and not inside.strip():
        alone = True
    kind = "close" if closing else "open"
    return Mark(kind, role, match.start(), match.end(), name.casefold(), "[" if match[5] else "<", alone)


@lru_cache(maxsize=4096)
def _role_of_tag(name: str) -> str:
    words = re.sub(r"[_.:-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).split()
    role = role_of(" ".join(words))
    named = words and (role_of(words[-1]) == role or (len(words) <= 2 and role_of(words[0]) == role))
    return role if named else ""  # <making_code_changes> holds no code


_INLINE_REQUEST = re.compile(
    r"(?<=[.!?。\n] )([^\s.:!?][^.:!?\n]{3,60}?(?:question|query|frage|pregunta|domanda|pergunta|vraag|вопрос))"
    r"[ \t]?[:：](?=[ \t])",
    re.IGNORECASE,
)
_MEMBER = re.compile(r'"?[ \t]*\]?[{,]\s*"([A-Za-z_]\w{0,30})"\s*:\s*(?:"|\[\s*"?)')
_INLINE = re.compile(
    r"(?<![^\s.。!?:：)）\]>,|])((?:[^\W\d_a-z][\w'’]*)(?:[ \t][\w'’]+){0,2}|"
    r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]{2,12})[ \t]?[:：]"
)


def inline_marks(text: str, start: int, end: int) -> list[Mark]:
    """Return labels within lines of `text[start:end]`: "Use the context. Context: ... Question: ... Answer:"."""
    found = []
    for match in _INLINE_REQUEST.finditer(text, start, end):
        if begins_as_instruction(match[1]):
            found.append(Mark("label", "request", match.start(1), match.end(), match[1].casefold(), "inline", False))
    spoken = start  # where a sentence that speaks of labels ends
    for match in _INLINE.finditer(text, start, end):
        words = match[1].split()
        for size in range(1, len(words) + 1):  # "... of Okafor Answer:": the shortest name
            name = " ".join(words[-size:])
            role = role_of(name)
            if role in ("context", "question", "answer") and not name[0].islower():
                begin = match.end(1) - len(name)
                if role == "answer" and begin >= spoken and _is_spoken_of(text, begin, match.end()):
                    ends = _SENTENCE_BREAK.search(text, match.end(), match.end() + _BEFORE)
                    spoken = ends.start() if ends else match.end() + _BEFORE
                if role != "question" and begin < spoken:
                    break
                found.append(Mark("label", role, begin, match.end(), name.casefold(), "inline", False))
                break
    return found


def _is_spoken_of(text: str, begin: int, end: int) -> bool:
    """Whether the label of an answer stands within a sentence that asks nothing: "The last line must be Answer: X".

    Behind a question on its line the label is the answer's, and at the end of a line it is the answer's cue.
    """
    stop = text.find("\n", end, end + _BEFORE)
    if not any(
        character.isalnum() or character == "." for character in text[end : stop if stop >= 0 else end + _BEFORE]
    ):
        return False
    line = text[max(0, begin - _BEFORE) : begin].rsplit("\n", 1)[-1]
    sentence = _SENTENCE_END.split(line)[-1]
    if not any(character.isalnum() for character in sentence):
        return False
    labels = re.split("[:：]", sentence)[:-1]
    return not any(role_of(" ".join(label.split()[-3:])) in ("question", "context", "answer") for label in labels)
