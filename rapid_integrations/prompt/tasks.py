"""What the words beside a text want: an answer that stands in it, or something made of all of it.

A chain may put a whole text into the last message and say what to do in another one. If that is a question, the text is
searched for its answer. If the text is to be translated, summarised or the like, nothing can be left out of it.
"""

from __future__ import annotations

import re

from rapid_integrations.prompt import segmentation

_MOST_QUESTIONS = 3  # in one instruction; more are a list of what to judge a text by
_NOTHING = re.compile(r"(?:</?[^<>\n]{1,60}>|[\w ]{1,30}[:：]|[\"'`*#=_~|“”„«»\[\](){}\s-])*+")
# Verbs of what is done with all of a text, beside those that the segmentation knows.
_REWORKS = re.compile(
    r"(?:(?:please|now|then|just|only|kindly)[ ,]+|(?:your|the) (?:task|job|goal|role) is(?: to)? |i want you to |"
    r"(?:can|could|would) you (?:please )?|you (?:will|must|should|are going to) |"
    r"(?:carefully|accurately|briefly|concisely) )*"
    r"(?:translate|rewrite|proofread|paraphrase|rephrase|correct|summari[sz]e|extract|classify|categori[sz]e|convert|"
    r"review|redact|anonymi[sz]e|condense|shorten|reformat|transcribe|outline|annotate|parse|tag|edit|improve|"
    r"übersetze|extrahiere|klassifiziere|traduis|extrais|traduce|extrae|traduci|estrai|traduza|extraia|vertaal)\b",
    re.IGNORECASE,
)
_NAMES_ONE = re.compile(
    r"(?:summar(?:y|ies)|translat(?:ions?|ors?|ed)|tl;?dr|résumés?|resúmen\w*|riassunto)\b", re.IGNORECASE
)
_BEFORE = re.compile(r"\s*(?:[-*+•#>]+\s+|\d{1,3}[.)]\s+|[\w ]{1,20}[:：]\s+(?=\S))*+")  # bullets and labels


def says_nothing(text: str) -> bool:
    """Whether a text around a context is blank, or only labels, tags and quotation marks."""
    return len(text) < 400 and _NOTHING.fullmatch(text) is not None


def ends_asking(text: str) -> bool:
    """Whether a text ends with a question mark."""
    return text.rstrip("*_ \n")[-1:] in ("?", "？", "؟")


def wants_all_of_it(instruction: str) -> bool:
    """Whether a sentence of an instruction wants all of a text translated, summarised, extracted or the like."""
    from rapid_integrations.prompt.segmentation.instructions import (
        WHOLE_TEXT,
        begins_as_instruction,
        needs_the_whole_text,
    )

    return any(
        _REWORKS.match(sentence)
        or (WHOLE_TEXT.match(sentence) and not _NAMES_ONE.match(sentence))
        or (needs_the_whole_text(sentence[:60]) and begins_as_instruction(sentence))
        for sentence in _sentences(instruction)
    )


def question_in(instruction: str) -> str:
    """Return what an instruction asks about a text that stands elsewhere, or "".

    That is a labelled question, or its sentences that end with a question mark. A role ("You are a helpful assistant.")
    asks nothing, nor does an example in quotation marks.
    """
    from rapid_integrations.prompt.segmentation.instructions import begins_as_instruction, needs_the_whole_text

    if len(instruction) > 2 * segmentation.MAX_QUERY_CHARACTERS or wants_all_of_it(instruction):
        return ""
    labelled = segmentation.question_of(instruction)
    if labelled != instruction.strip():
        return labelled
    asking = [
        sentence
        for sentence in _sentences(instruction)
        if ends_asking(sentence) and not begins_as_instruction(sentence) and not needs_the_whole_text(sentence)
    ]
    return " ".join(asking) if len(asking) <= _MOST_QUESTIONS else ""


def _sentences(text: str) -> list[str]:
    from rapid_integrations.prompt.segmentation.shape import sentences_of

    sentences = (sentence for line in text.split("\n") for sentence in sentences_of(line))
    return [_BEFORE.sub("", sentence, count=1).strip() for sentence in sentences]
