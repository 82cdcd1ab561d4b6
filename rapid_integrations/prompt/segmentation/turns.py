"""The turn that a prompt ends with, if it is written as somebody's: "Human: ... Assistant:".

The label of a turn is often the label of a question, too. But a program may put a document into the turn, and then the
first line of the document stands behind the label.
"""

from __future__ import annotations

import re

from rapid_integrations.prompt.segmentation.blocks import tail_end
from rapid_integrations.prompt.segmentation.instructions import begins_as_instruction, reads_as_instruction
from rapid_integrations.prompt.segmentation.lexicon import SPEAKERS
from rapid_integrations.prompt.segmentation.spans import MIN_CONTEXT_CHARACTERS, Segmentation, Span

_MOST_ELSEWHERE = 0.4  # share of a prompt that stands outside of the turn
_CHARACTERS = 4000  # at the beginning of a prompt, in which the turn begins
_LONGEST_LABEL = 12  # characters of a label that a document's first line begins with: "Q: "
_DECORATION = " \t\r\n#*_=>~|`\"'"


def _speakers(role: str) -> str:
    names = (name for name, of in SPEAKERS.items() if of == role and len(name) > 1 and "input" not in name)
    return "|".join(sorted(map(re.escape, names), key=len, reverse=True))


_LABEL = r"^[ \t]*(?:#{{1,4}}[ \t]*|\*\*|\[)?({})[*\]]{{0,2}}[ \t]?[:：](?:\*\*)?"
_HUMAN = re.compile(_LABEL.format(_speakers("question")), re.IGNORECASE | re.MULTILINE)
_ANSWERS = re.compile(_LABEL.format(_speakers("answer")), re.IGNORECASE | re.MULTILINE)
_CUE = re.compile(_ANSWERS.pattern + r"\s*\Z", re.IGNORECASE | re.MULTILINE)


def last_turn(text: str, begin: int) -> Span | None:
    """Return what stands in the last turn, behind its label, if that is most of the prompt; None otherwise."""
    stop = tail_end(text)
    labels = list(_HUMAN.finditer(text, begin, min(stop, begin + _CHARACTERS)))
    if not labels:
        return None
    label = labels[-1]
    cue = _CUE.search(text, max(label.end(), stop - 100), stop)
    end = cue.start() if cue is not None else stop
    if end - label.end() < max(MIN_CONTEXT_CHARACTERS, (1 - _MOST_ELSEWHERE) * (stop - begin)):
        return None
    if _ANSWERS.search(text, label.end(), min(end, label.end() + _CHARACTERS)):
        return None  # what follows is an answer, and so a history
    return label.end(), end


def opens(text: str, turn: Span, query: str) -> bool:
    """Whether a question is only what the turn begins with, and bids nothing."""
    query = query.lstrip(_DECORATION)
    behind = text[turn[0] : turn[1]].lstrip(_DECORATION)
    at = behind.find(query, 0, len(query) + _LONGEST_LABEL)
    if at < 0 or (at > 0 and behind[:at].rstrip()[-1:] not in (":", "：")):
        return False
    row_or_heading = "|" in query or text[turn[0] : turn[1]].lstrip()[:1] == "#"
    return row_or_heading or not begins_as_instruction(query) or reads_as_instruction(query)


def moved(found: Segmentation, turn: Span) -> Segmentation:
    """Return what was found in the turn as places in the prompt."""
    spans = tuple((turn[0] + start, turn[0] + end) for start, end in found.context_spans)
    return Segmentation(found.method, spans, found.query)
