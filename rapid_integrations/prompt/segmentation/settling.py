"""A question without what a template says around it: lead-ins, labels, quotation marks, instructions."""

from __future__ import annotations

import re

from rapid_integrations.prompt.segmentation.instructions import (
    addresses_somebody,
    begins_as_instruction,
    reads_as_instruction,
)
from rapid_integrations.prompt.segmentation.role_words import ROLES
from rapid_integrations.prompt.segmentation.shape import EDGES, SIGNS, TAG, Line, asks, sentences_of
from rapid_integrations.prompt.segmentation.spans import MAX_QUERY_CHARACTERS

_VALUE = re.compile(r"[\w ]{1,20}[ \t]?[=:][ \t]?(?=[\"'“{])")
_BRACKETED = re.compile(r"\s*\[[A-Za-z][\w ]{0,24}\][:：]?[ \t]+(?=\S)")
_COMMAND = re.compile(r"\\?[a-z]{2,12}\{[^{}\n]{1,40}\}[ \t]*")
_NEXT_LABEL = re.compile(r"[\s|]*[^\W\d_]{3,16}(?: \w+){0,2}[ \t]?[:=|]")
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
_LEAD_IN = re.compile(r"([,，:：;–—-]|\.\.\.|…)[ \t]+(?=\S)|[:：，,](?=[^\x00-\x7f])")
_ENUMERATOR = re.compile(r"(?:[^\w¿¡\"'“„«「(<\[]{1,6}[ \t]*)?(?:(?:\d{1,2}|[a-zA-Z])[.)][ \t]+)?")
_ITEM = re.compile(r"\s*(?:[-*+•]\s|\|)")
_NUMBERED = re.compile(r"\s*\(?(?:\d{1,2}|[a-h])[.)]\s")
_COLON = re.compile(r"[:：](?:\s|[^\x00-\x7f])")
_QUOTED = re.compile(rf"[\"“„«「]([^\"“”„«»「」\n]{{4,}}[{SIGNS}])(?:[\"”“»」]|$)")
_INTRODUCED = re.compile(r"([^:：|.!?。！？\n]{1,24})[:：|]\s*(?=\S)")
_LONGEST = 600  # characters of a question
_BEGINS_ANEW = re.compile(r"\s*(?:[A-ZÀ-ÞΑ-ЯЁ¿\"“„«]|[^\x00-\u024f])")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_OTHER = re.compile(r"[\u0370-\u1fff\u2e80-\uffef]")


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
        script = bool(_LATIN.search(head)) and not _OTHER.search(head) and bool(_OTHER.match(rest.lstrip(EDGES)))
        script = script or (bool(_OTHER.search(head)) and bool(_LATIN.match(rest)) and not _LATIN.search(head))
        if script or _CAPITAL_LEAD.match(rest.lstrip(EDGES)):
            best = rest
            if found[1] and found[1] in ",，":
                break
    if best is not None:
        return best.lstrip(EDGES)
    return query


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
        query = query[introduced.end() :].strip(EDGES)
    if not any(character.isalnum() for character in query) or TAG.search(query):
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
    query = "\n".join(lines[first:]).strip(EDGES)
    at = max(query.rfind(sign) for sign in SIGNS) + 1
    rest = query[at:].strip(EDGES + ")]}.")
    told = query[-1:] in ".!。" and len(rest) > 12 and len(sentences_of(rest)) == 1
    if labelled and told and not (_NEXT_LABEL.match(rest) or _instructs_only(rest, False)):
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
    while len(said) > 1 and not asks(said[0]) and _instructs_only(said[0], labelled):
        query = query[query.index(said[0]) + len(said[0]) :].lstrip(EDGES)
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
    return query.strip(EDGES) or None


def _instructs_only(sentence: str, labelled: bool) -> bool:
    if labelled:
        return begins_as_instruction(sentence) and reads_as_instruction(sentence)
    return begins_as_instruction(sentence) or reads_as_instruction(sentence)


def _unwrapped(query: str) -> str:
    """Return a value without its key, quotation marks and brackets: "text = 'Who ...?'"."""
    query = query.lstrip(EDGES + ">").rstrip(EDGES)  # ">" quotes
    for pattern in (_VALUE, _COMMAND):
        if value := pattern.match(query):
            query = query[value.end() :]
    if query[:1] == "{" and query[-1:] == "}":
        query = query[1:-1]
    return query.strip(EDGES)
