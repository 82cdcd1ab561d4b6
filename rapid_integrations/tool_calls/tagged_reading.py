"""Read arguments that a call writes one by one between marks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rapid_integrations.tool_calls.loose import loose, loose_source, prefixes
from rapid_integrations.tool_calls.tagged import TaggedArguments
from rapid_integrations.tool_calls.tagged_types import BOTH, Kind, kinds_of, referred

_LONGEST_NAME = 200
_PYTHONS = {"True": True, "False": False, "None": None}  # as several templates write them in earlier calls


@dataclass(frozen=True)
class ReadArguments:
    """Arguments as far as they are written.

    Attributes:
        arguments: the complete ones.
        end: the position behind the last complete argument.
        error: what is wrong behind it, or with a value; None if the arguments are complete.
        begun: the last argument as JSON, if it is cut off or no JSON: '"city": "Ber'.
    """

    arguments: dict[str, Any]
    end: int
    error: str | None
    begun: str = ""

    @property
    def as_json(self) -> str:
        """The arguments as JSON, without its end if they are not complete."""
        text = json.dumps(self.arguments, ensure_ascii=False)
        if self.error is None:
            return text
        return text[:-1] + (", " if self.arguments and self.begun else "") + self.begun


def read_arguments(text: str, at: int, tagged: TaggedArguments, tail: str, schema: Any) -> ReadArguments:
    """Read the arguments at `at`, up to what ends the call.

    Args:
        text: an answer.
        at: where the arguments begin.
        tagged: how they are written.
        tail: what ends the call.
        schema: that of the tool's arguments. It tells a string from other values; None if it is not known.
    """
    key, between, ending = loose(tagged.key), loose(tagged.between), loose(tail.strip())
    marks = {tagged.text: None} if tagged.text == tagged.other else {tagged.text: True, tagged.other: False}
    named = [
        (re.compile(rf"([^\n]{{1,{_LONGEST_NAME}}}?){loose_source(mark.rstrip())}"), mark, is_text)
        for mark, is_text in marks.items()
    ]
    behind = [(tagged.between + tagged.key).strip(), tail.strip()]
    cut = "|".join(map(prefixes, behind))
    follow = re.compile(rf"\s*(?:{'|'.join(map(loose_source, behind))}|(?:{cut})\s*\Z)")
    arguments: dict[str, Any] = {}
    end, wrong = at, None
    while True:
        if ending.match(text, _skip(text, end)):
            return ReadArguments(arguments, _skip(text, end), wrong)
        place = end
        if arguments:
            separated = between.match(text, place)
            place = place if separated is None else separated.end()
        opened = key.match(text, _skip(text, place))
        found = None if opened is None else _named(text, opened.end(), named)
        if found is None:
            missing = not text[end:].strip()
            error = f"{tail.strip()} is missing after it" if missing else "an argument does not begin as it should"
            return ReadArguments(arguments, end, wrong or error)
        name, mark, is_text, begin = found
        kinds = kinds_of_argument(schema, name) if is_text is None else (_ONLY[is_text])
        closed = _closing(text, begin, tagged.core, follow)
        if closed is None:
            value = _without_cut(text[begin:], tagged.end)
            begun = f"{json.dumps(name, ensure_ascii=False)}: " + _begun(value, kinds)
            return ReadArguments(arguments, end, f"the argument {name!r} does not end", begun)
        raw = text[begin : closed[0]]
        try:
            arguments[name] = _value(raw, mark, tagged.end, kinds)
        except ValueError:
            wrong = wrong or f"the argument {name!r} is not JSON: {raw.strip():.80}"
        end = closed[1]


def kinds_of_argument(schema: Any, name: str) -> frozenset[Kind]:
    """Return the kinds of value that a tool's schema allows for an argument."""
    place = schema
    for _ in range(8):
        if not isinstance(place, Mapping):
            return BOTH
        properties = place.get("properties")
        if isinstance(properties, Mapping) and name in properties:
            return kinds_of(properties[name], schema)
        place = referred(place, schema)
    return BOTH


_ONLY: dict[bool, frozenset[Kind]] = {True: frozenset(("text",)), False: frozenset(("other",))}


def _named(
    text: str, at: int, named: list[tuple[re.Pattern[str], str, bool | None]]
) -> tuple[str, str, bool | None, int] | None:
    """Return an argument's name, the mark behind it, whether that says that a string follows, and the value's place."""
    found = [(match, mark, is_text) for pattern, mark, is_text in named if (match := pattern.match(text, at))]
    if not found:
        return None
    match, mark, is_text = min(found, key=lambda each: len(each[0][1]))
    blank = mark[len(mark.rstrip()) :]
    begin = match.end() + (len(blank) if text.startswith(blank, match.end()) else 0)
    return match[1].strip(), mark, is_text, begin


def _closing(text: str, begin: int, core: str, follow: re.Pattern[str]) -> tuple[int, int] | None:
    """Return where a value ends and where the text behind it begins: at the first mark that something apt follows."""
    first = at = text.find(core, begin)
    while at >= 0 and not follow.match(text, at + len(core)):
        at = text.find(core, at + 1)
    at = first if at < 0 else at
    return None if at < 0 else (at, at + len(core))


def _value(raw: str, mark: str, end: str, kinds: frozenset[Kind]) -> Any:
    """Return the value of a written argument.

    Raises:
        ValueError: it has to be JSON, and is not.
    """
    if "other" in kinds:
        written = raw.strip()
        try:
            value = _PYTHONS[written] if written in _PYTHONS else json.loads(written)
        except (ValueError, RecursionError):
            if "text" not in kinds:
                raise ValueError from None
        else:
            if not (isinstance(value, str) and "text" in kinds):
                return value
    blank = end[: len(end) - len(end.lstrip())]
    return raw[: len(raw) - len(blank)] if blank and raw.endswith(blank) else raw


def _without_cut(value: str, end: str) -> str:
    """Return a value that is cut off without the beginning of what ends it."""
    longest = next(length for length in range(min(len(end), len(value)), -1, -1) if value.endswith(end[:length]))
    return value[: len(value) - longest]


def _begun(value: str, kinds: frozenset[Kind]) -> str:
    is_json = "other" in kinds and (kinds == _ONLY[False] or value.lstrip().startswith(("[", "{")))
    return value.strip() if is_json else json.dumps(value, ensure_ascii=False)[:-1]


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
