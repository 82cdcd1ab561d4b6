"""Read the members of a JSON object that may be cut off, as far as they are written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Members:
    """The members of an object, as far as they are written.

    Attributes:
        raw: the text of each value by its key. The last one may be cut off or invalid.
        end: the end of the object, or None if it does not end or is not JSON.
        error: the fault of the object, or None if it is complete.
    """

    raw: dict[str, str]
    end: int | None
    error: str | None


def read_members(text: str, start: int, limit: int) -> Members:
    """Return the members of the object that opens at `start`, of the text up to `limit`."""
    raw: dict[str, str] = {}
    text = text[:limit]
    at = _skip(text, start + 1)
    if text[at : at + 1] == "}":
        return Members(raw, at + 1, None)
    while True:
        try:
            key, at = _DECODER.raw_decode(text, at)
            if not isinstance(key, str):
                return Members(raw, None, f"a key is not a string at character {at - start}")
            at = _skip(text, at)
            if text[at : at + 1] != ":":
                return Members(raw, None, _missing(text, at, start, "':'"))
            value = at = _skip(text, at + 1)
        except (ValueError, RecursionError):
            return Members(raw, None, _missing(text, at, start, "a key"))
        try:
            _, at = _DECODER.raw_decode(text, value)
        except ValueError as error:
            raw[key] = text[value:].rstrip()
            wrong = error.pos if isinstance(error, json.JSONDecodeError) else value
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            return Members(raw, None, f"it is not JSON at character {wrong - start}: {what}")
        except RecursionError:
            raw[key] = text[value:]
            return Members(raw, None, "it is nested too deep")
        raw[key] = text[value:at]
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return Members(raw, at + 1, None)
        if text[at : at + 1] != ",":
            return Members(raw, None, _missing(text, at, start, "',' or '}'"))
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return at if match is None else match.end()


def _missing(text: str, at: int, start: int, what: str) -> str:
    where = "at its end" if at >= len(text) else f"at character {at - start}"
    return f"it is not JSON: {what} is missing {where}"
