"""Parse the tool calls in an answer's text, including the invalid ones."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from rapid_integrations.outputs import InvalidToolCall, ToolCall
from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.json_members import read_members
from rapid_integrations.tool_calls.literals import LiteralArguments, read_literals
from rapid_integrations.tool_calls.loose import loose, loose_source, prefixes
from rapid_integrations.tool_calls.tagged import TaggedArguments
from rapid_integrations.tool_calls.tagged_reading import ReadArguments, read_arguments

_DECODER = json.JSONDecoder()
_NAME = r"[\w./:-]"
_IDENTITIES = {"id": r"[\w.:-]", "number": r"\d", None: ""}
_FENCE = re.compile(r"```(?:json)?\s*")
_FENCE_END = re.compile(r"\s*```\s*")
_CERTAIN = 4  # characters of an opening, without white space, that make a cut answer's end a call

CUT = "max_new_tokens cut it before its end"
UNENDED = "the answer ended before it"


class Parsed(NamedTuple):
    """The parts of an answer, or of its end: text, calls and invalid calls."""

    text: str
    calls: list[ToolCall]
    invalid: list[InvalidToolCall]


def new_call_id() -> str:
    """Return a new id of nine letters and digits, which the strictest templates accept."""
    return secrets.token_hex(5)[:9]


def parse_calls(
    text: str, call_format: CallFormat, names: Collection[str], limit: int | None = None, *, cut: bool = False
) -> Parsed:
    """Separate the calls from a text.

    White space between the parts of a call may differ from the template's. White space before a call belongs to it. A
    call is invalid if its tool is not declared, its arguments are not a JSON object, it is unfinished, or it exceeds
    `limit`.

    Args:
        text: an answer, or its end.
        call_format: the format of calls.
        names: the names of the declared tools. If it maps them to the schemas of their arguments, those tell strings
            from other values where calls write both alike.
        limit: maximum number of calls.
        cut: whether max_new_tokens cut the answer, so that its end may be the beginning of a call.
    """
    return _Parser(text, call_format, names, limit, cut).parse()


def places_of_calls(text: str, call_format: CallFormat) -> list[int]:
    """Return the places in a text where a call may begin."""
    if not call_format.marked:
        return [0]
    return _Parser(text, call_format, (), None, False).openings()


def parse_bare_call(text: str, names: Collection[str], *, cut: bool = False) -> Parsed | None:
    """Return the call if `text` is only its JSON, bare or in a code fence, else None.

    Some models write calls like this although their template shows another format (Qwen2.5-Coder). A text that names a
    declared tool and has begun its arguments is a call, though perhaps an invalid one.
    """
    text = text.strip()
    fence = _FENCE.match(text)
    start = 0 if fence is None else fence.end()
    if text[start : start + 1] != "{":
        return None
    members = read_members(text, start, len(text))
    name = _decoded(members.raw.get("name"))
    raw = members.raw.get("arguments", members.raw.get("parameters"))
    if not isinstance(name, str) or name not in names or raw is None:
        return None
    error = members.error
    if members.end is not None:
        closed = members.end == len(text) if fence is None else _FENCE_END.fullmatch(text, members.end) is not None
        if not closed and members.end < len(text):
            return None  # a text that quotes a call
        arguments = _decoded(raw)
        if closed and isinstance(arguments, dict):
            return Parsed("", [ToolCall(id=new_call_id(), name=name, arguments=arguments)], [])
        error = _no_object(arguments) if not isinstance(arguments, dict) else "its code fence does not end"
    return Parsed("", [], [InvalidToolCall(name=name, arguments=raw, error=CUT if cut else error or UNENDED)])


@dataclass(frozen=True)
class _Attempt:
    """A valid or invalid call, and the position of its end in the text."""

    end: int
    call: ToolCall | None = None
    invalid: InvalidToolCall | None = None


class _Parser:
    """Parses one text for `parse_calls`."""

    def __init__(self, text: str, form: CallFormat, names: Collection[str], limit: int | None, cut: bool) -> None:
        self._text = text
        self._form = form
        self._names = names
        self._limit = limit
        self._cut = cut
        self._calls: list[ToolCall] = []
        self._invalid: list[InvalidToolCall] = []
        number = r"\d+" if form.numbered else ""
        self._before, self._between = (re.compile(loose_source(part) + number) for part in (form.before, form.between))
        self._after = loose(form.after)
        self._schemas: Mapping[str, Any] = names if isinstance(names, Mapping) else {}
        marker = form.marker if form.keys else form.head
        begins = dict.fromkeys(form.marker if form.keys else way.head for way in form.ways)
        # A search for white space first would try every place of a long blank.
        parts = ((form.before, begin) if form.before.strip() else ("", begin.lstrip()) for begin in begins)
        self._opening = re.compile(
            "|".join(loose_source(before.lstrip()) + number + loose_source(begin) for before, begin in parts)
        )
        self._marker = loose(marker)

    def parse(self) -> Parsed:
        kept: list[str] = []
        position = start = 0
        while True:
            if self._form.marked:
                match = self._opening.search(self._text, start)
                if match is None:
                    break
                at = match.start()
            elif start == 0:
                at = len(self._text) - len(self._text.lstrip())
            else:
                break
            end = self._block(at)
            start = max(end, at + 1)
            if end > at:
                kept.append(self._text[position:at].rstrip())
                position = end
        rest = self._text[position:]
        kept.append(self._without_cut_opening(rest))
        if (self._calls or self._invalid) and not kept[-1].strip():
            kept[-1] = ""
        return Parsed("".join(kept), self._calls, self._invalid)

    def openings(self) -> list[int]:
        """Return the places of the openings of calls."""
        return [match.start() for match in self._opening.finditer(self._text)]

    def _block(self, start: int) -> int:
        """Parse the calls that begin at `start`. Return the position of their end, `start` itself if there are none."""
        match, end = self._before.match(self._text, start), start
        found = False
        while match is not None and (attempt := self._attempt(match.end())) is not None:
            found, end = True, attempt.end
            if attempt.call is not None and (self._limit is None or len(self._calls) < self._limit):
                self._calls.append(attempt.call)
            elif attempt.call is not None:
                arguments = json.dumps(attempt.call.arguments, ensure_ascii=False)
                allowed = "one call an answer is allowed" if self._limit == 1 else f"{self._limit} calls are allowed"
                self._invalid.append(InvalidToolCall(name=attempt.call.name, arguments=arguments, error=allowed))
            elif attempt.invalid is not None:
                self._invalid.append(attempt.invalid)
            match = self._between.match(self._text, end) if self._form.parallel else None
        if found and (match := self._after.match(self._text, end)):
            end = match.end()
        return end

    def _attempt(self, start: int) -> _Attempt | None:
        """Parse a call at a place where one may stand, or return None."""
        if self._form.keys is not None:
            match = self._marker.match(self._text, start)
            return None if match is None else self._object(match.end(), self._form.keys)
        for way in self._form.ways:
            match = loose(way.head).match(self._text, start)
            if match is not None and (attempt := self._named(match.end(), way)) is not None:
                return attempt
        return None

    def _object(self, at: int, keys: tuple[str, str, str | None]) -> _Attempt | None:
        """Parse an object that holds a call's name and arguments."""
        if self._text[at : at + 1] != "{":
            return None
        read = _json_object(self._text, at)
        if read is not None:
            found, end = read
            closing = loose(self._form.closing).match(self._text, end)
            name, arguments = (found.get(key) for key in keys[:2])
            if closing is not None and (self._form.marked or name in self._names):
                raw = read_members(self._text, at, end).raw.get(keys[1], "")
                return self._checked(name, arguments, raw, found.get(keys[2]) if keys[2] else None, closing.end())
        end = self._end_of_broken(at) if read is None else read[1]
        members = read_members(self._text, at, end)
        name = _decoded(members.raw.get(keys[0]))
        if not self._form.marked and not self._names_a_tool(members.raw, keys):
            return None
        error = members.error or f"{self._form.closing.strip() or 'its end'} is missing after it"
        return self._broken(name, members.raw.get(keys[1], ""), error, end)

    def _named(self, at: int, form: CallFormat) -> _Attempt | None:
        """Parse a name that arguments follow."""
        match = _name_pattern(form).match(self._text, at)
        if match is None:
            if not self._cut or (named := re.fullmatch(_cut_name(form), self._text[at:])) is None:
                return None
            name = named["name"] if named["name"] in self._names else None
            return _Attempt(len(self._text), invalid=InvalidToolCall(name=name, arguments="", error=CUT))
        name, begin = match["name"], match.end()
        call_id = match["identity"] if self._form.identity == "id" else None
        if self._form.identity == "number":
            call_id = self._form.identified(name, match["identity"])
        if self._form.tagged is not None:
            return self._one_by_one(name, call_id, begin, self._form.tagged)
        tail = loose(self._form.tail)
        read = _json_object(self._text, begin)
        if read is not None and (closing := tail.match(self._text, read[1])) is not None:
            return self._checked(name, read[0], self._text[begin : read[1]], call_id, closing.end())
        end = self._end_of_broken(begin) if read is None else read[1]
        members = read_members(self._text, begin, end)
        error = members.error or f"{self._form.tail.strip() or 'its end'} is missing after it"
        return self._broken(name, self._text[begin:end], error, end)

    def _one_by_one(
        self, name: str, call_id: str | None, begin: int, tagged: TaggedArguments | LiteralArguments
    ) -> _Attempt:
        """Parse arguments that are written one by one."""
        if isinstance(tagged, LiteralArguments):
            read = ReadArguments(*read_literals(self._text, begin, tagged, self._form.tail))
        else:
            read = read_arguments(self._text, begin, tagged, self._form.tail, self._schemas.get(name))
        closing = loose(self._form.tail).match(self._text, read.end)
        if closing is None:
            end = self._end_of_broken(read.end)
            return self._broken(name, read.as_json, read.error or UNENDED, end)
        if read.error is not None:
            invalid = InvalidToolCall(name=name, arguments=read.as_json, error=read.error)
            return _Attempt(closing.end(), invalid=invalid)
        return self._checked(name, read.arguments, read.as_json, call_id, closing.end())

    def _checked(self, name: Any, arguments: Any, raw: str, call_id: Any, end: int) -> _Attempt:
        """Return a complete call if it is valid."""
        if isinstance(arguments, str):  # some models write the arguments as a string of JSON
            inner = _json_object(arguments, 0)
            arguments = inner[0] if inner is not None and inner[1] == len(arguments.rstrip()) else None
        if isinstance(name, str) and name in self._names and isinstance(arguments, dict):
            call_id = call_id if isinstance(call_id, str) and call_id else new_call_id()
            return _Attempt(end, call=ToolCall(id=call_id, name=name, arguments=arguments))
        if not isinstance(name, str):
            error = "it names no tool"
        elif name not in self._names:
            error = f"no tool is called {name!r}; there are {', '.join(sorted(self._names))}"
        else:
            error = _no_object(arguments)
        known = name if isinstance(name, str) else None
        return _Attempt(end, invalid=InvalidToolCall(name=known, arguments=raw, error=error))

    def _broken(self, name: Any, raw: str, error: str, end: int) -> _Attempt:
        """Return a call that is not JSON or not closed. Its closing text may stand or begin at `end`."""
        closing = loose(self._form.closing if self._form.keys else self._form.tail).match(self._text, end)
        if closing is not None and closing.end() > end:
            end = closing.end()
        else:
            written = self._form.closing if self._form.keys else self._form.tail + self._form.after
            if self._cut and re.fullmatch(prefixes(written) + r"\s*", self._text[end:]):
                end = len(self._text)
            if end == len(self._text):
                error = CUT if self._cut else f"{UNENDED}: {error}"
        known = name if isinstance(name, str) else None
        return _Attempt(end, invalid=InvalidToolCall(name=known, arguments=raw, error=error))

    def _end_of_broken(self, start: int) -> int:
        """Return the end of invalid JSON: before the closing text, the next call, or the end of the text."""
        ends = [len(self._text)]
        closing = (self._form.closing if self._form.keys else self._form.tail).strip()
        if re.search(r"\w", closing):  # a bracket may stand in a string
            ends += [at for at in (self._text.find(closing, start),) if at >= 0]
        if self._form.marked and (following := self._opening.search(self._text, start)):
            ends.append(following.start())
        return min(ends)

    def _names_a_tool(self, raw: dict[str, str], keys: tuple[str, str, str | None]) -> bool:
        """Whether an object without a marker is, or was going to be, a call, judged by its keys."""
        written = raw.get(keys[0])
        if written is None:
            return False
        if (name := _decoded(written)) is not None:
            return name in self._names and (self._cut or keys[1] in raw)
        return self._cut and any(json.dumps(name).startswith(written) for name in self._names)

    def _without_cut_opening(self, rest: str) -> str:
        """Return `rest` without the beginning of a call at its end; a cut answer makes that an invalid call."""
        if not self._cut:
            return rest
        form = self._form
        if self._calls or self._invalid:
            if not rest.strip():
                return ""
            for separators in (form.after, form.between):
                if separators and re.fullmatch(r"\s*" + prefixes(separators) + r"\s*", rest):
                    return ""
        begins = (form.marker + "{") if form.keys else "" if form.numbered else form.head
        known = bool(self._calls or self._invalid)
        for opening in (form.before, form.between) if form.numbered else ():
            end = rf"{loose_source(opening.lstrip())}\d*{prefixes(form.head)}\s*\Z"
            if (cut := re.search(end, rest)) is not None:
                self._invalid.append(InvalidToolCall(name=None, arguments="", error=CUT))
                return rest[: cut.start()].rstrip()
        openings = {form.before + begins, form.between + begins} if form.marked else set()
        places = [_beginning_at_the_end(rest, "".join(opening.split())) for opening in openings]
        start, written = max(places, key=lambda place: place[1], default=(len(rest), 0))
        if written >= (1 if known and not rest[:start].strip() else _CERTAIN):
            self._invalid.append(InvalidToolCall(name=None, arguments="", error=CUT))
            return rest[:start].rstrip()
        return rest


@lru_cache(maxsize=64)
def _name_pattern(form: CallFormat) -> re.Pattern[str]:
    """Return a pattern for a call's name and identity, up to its arguments."""
    identity = f"(?P<identity>{_IDENTITIES[form.identity]}+?)" if form.identity else ""
    return re.compile(
        rf"(?P<name>{_NAME}+?){loose_source(form.middle)}{identity}{loose_source(form.identity_tail)}"
        rf"\s*(?={_arguments_begin(form)})"
    )


def _arguments_begin(form: CallFormat) -> str:
    """Return a pattern for the beginning of a call's arguments."""
    if form.tagged is None:
        return r"\{"
    return f"{loose_source(form.tagged.key.strip())}|{loose_source(form.tail.strip())}"


def _cut_name(form: CallFormat) -> str:
    """Return a pattern for the beginning of a call from its name on, up to its arguments."""
    begins = [""] if form.tagged is None else [form.tagged.key, form.tail]
    ways = [prefixes(form.middle + begin) for begin in begins]
    if form.identity is not None:
        identity = _IDENTITIES[form.identity]
        ways = [rf"{loose_source(form.middle)}{identity}+{prefixes(form.identity_tail + each)}" for each in begins]
        ways.append(prefixes(form.middle))
    return rf"(?P<name>{_NAME}*?)(?:{'|'.join(ways)})\s*"


def _decoded(raw: str | None) -> Any:
    if raw is None:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _no_object(arguments: Any) -> str:
    if arguments is None:
        return "its arguments are missing, or not a JSON object"
    return f"its arguments are a JSON {type(arguments).__name__}, not an object"


def _json_object(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    try:
        found, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (found, end) if isinstance(found, dict) else None


def _beginning_at_the_end(text: str, opening: str) -> tuple[int, int]:
    """Return position and length of the longest end of `text` that is a beginning of `opening`.

    White space counts in neither.
    """
    start, longest, written = len(text), 0, ""
    for at in range(len(text) - 1, -1, -1):
        if text[at].isspace():
            continue
        written = text[at] + written
        if len(written) > len(opening):
            break
        if opening.startswith(written):
            start, longest = at, len(written)
    return start, longest
