"""From the text of an answer to its tool calls; whatever does not parse stays text."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection
from typing import Any

from rapid_integrations.outputs import ToolCall
from rapid_integrations.tool_calls.call_format import CallFormat

_DECODER = json.JSONDecoder()
_NAME = re.compile(r"[\w.-]+")
_BARE = re.compile(r"(?P<fence>```(?:json)?\s*)?(?P<object>\{.*\})(?(fence)\s*```)", re.DOTALL)


def new_call_id() -> str:
    """Return a fresh id: nine letters and digits, which is what the strictest templates take."""
    return secrets.token_hex(5)[:9]


def parse_calls(
    text: str, call_format: CallFormat, names: Collection[str], limit: int | None = None
) -> tuple[str, list[ToolCall]]:
    """Return the text without its calls, and the calls.

    White space between the parts of a call may differ from the template's. A call of a tool that is not declared, with
    arguments that are no JSON object, or cut off, is text.

    Args:
        text: an answer, or its end.
        call_format: how calls are written.
        names: the tools that are declared.
        limit: calls at most; further ones are text.
    """
    kept: list[str] = []
    calls: list[ToolCall] = []
    position = start = 0
    opening = _loose(call_format.before + (call_format.marker if call_format.keys else call_format.head))
    while limit is None or len(calls) < limit:
        if call_format.marked:
            match = opening.search(text, start)
            if match is None:
                break
            at = match.start()
        elif start == 0:
            at = len(text) - len(text.lstrip())
        else:
            break
        found, end = _block(text, at, call_format, names, None if limit is None else limit - len(calls))
        start = end if found else at + 1
        if found:
            kept.append(text[position:at])
            calls += found
            position = end
    rest = text[position:]
    kept.append("" if calls and not rest.strip() else rest)
    return "".join(kept), calls


def parse_bare_call(text: str, names: Collection[str]) -> ToolCall | None:
    """Return the call that `text` is and nothing else: its JSON, bare or in a code fence; None if it is none.

    Some models write calls so although their template shows another format (Qwen2.5-Coder).
    """
    match = _BARE.fullmatch(text.strip())
    read = None if match is None else _json_object(match["object"], 0)
    if match is None or read is None or read[1] != len(match["object"]):
        return None
    found = read[0]
    arguments = found.get("arguments", found.get("parameters"))
    name = found.get("name")
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return None
    return ToolCall(id=new_call_id(), name=name, arguments=arguments)


def _block(
    text: str, start: int, call_format: CallFormat, names: Collection[str], limit: int | None
) -> tuple[list[ToolCall], int]:
    """Read the calls that begin at `start`; returns them and where they end."""
    before, between, after = (_loose(part) for part in (call_format.before, call_format.between, call_format.after))
    calls: list[ToolCall] = []
    match, end = before.match(text, start), start
    while match is not None and (limit is None or len(calls) < limit):
        read = _call(text, match.end(), call_format, names)
        if read is None:
            break
        call, end = read
        calls.append(call)
        match = between.match(text, end) if call_format.parallel else None
    if calls and (match := after.match(text, end)):
        end = match.end()
    return calls, end


def _call(text: str, start: int, call_format: CallFormat, names: Collection[str]) -> tuple[ToolCall, int] | None:
    """Read one call; None where there is none."""
    name: Any
    arguments: Any
    call_id: Any = None
    if call_format.keys is not None:
        match = _loose(call_format.marker).match(text, start)
        read = None if match is None else _json_object(text, match.end())
        if read is None:
            return None
        found, end = read
        name, arguments = (found.get(key) for key in call_format.keys[:2])
        call_id = found.get(call_format.keys[2]) if call_format.keys[2] else None
        closing = _loose(call_format.closing)
    else:
        head = _loose(call_format.head).match(text, start)
        named = None if head is None else _NAME.match(text, head.end())
        middle = None if named is None else _loose(call_format.middle).match(text, named.end())
        read = None if middle is None else _json_object(text, middle.end())
        if read is None or named is None:
            return None
        name, (arguments, end) = named[0], read
        closing = _loose(call_format.tail)
    if isinstance(arguments, str):  # some models write the arguments as a string of JSON
        inner = _json_object(arguments, 0)
        arguments = inner[0] if inner is not None else None
    if (match := closing.match(text, end)) is None or name not in names or not isinstance(arguments, dict):
        return None
    call_id = call_id if isinstance(call_id, str) and call_id else new_call_id()
    return ToolCall(id=call_id, name=name, arguments=arguments), match.end()


def _json_object(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    try:
        found, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (found, end) if isinstance(found, dict) else None


def _loose(literal: str) -> re.Pattern[str]:
    """Match `literal` with any white space, or none, where it has some."""
    return re.compile(r"\s*".join(re.escape(part) for part in re.split(r"\s+", literal)))
