"""Arguments that a call writes one by one instead of as one JSON object, and how a template writes them.

`<parameter=city>Bern</parameter>` (Qwen3-Coder, Qwen3.5), `<arg_key>city</arg_key><arg_value>Bern</arg_value>` (GLM),
`<parameter name="city">Bern</parameter>` (MiniMax-M2). A string stands there as it is, and any other value as JSON.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Words that no template writes by itself, in the order of the alphabet: some templates sort arguments.
KEY, OTHER_KEY, VALUE, OTHER_VALUE = "zqkey", "zqlast", "zqvalue", "zqwords"
_NUMBER = 48_151
_INSIDE = "<[{(|"  # a piece that ended with one of these would cut a tag in two


@dataclass(frozen=True)
class TaggedArguments:
    """The text around arguments: `key NAME text STRING end`, or `key NAME other JSON end`, with `between` in between.

    Attributes:
        key: the text before an argument's name.
        text: the text between the name and a string.
        other: the text between the name and any other value; mostly the same.
        end: the text after a value.
        between: the text between two arguments.
    """

    key: str
    text: str
    other: str
    end: str
    between: str

    @property
    def written(self) -> str:
        """Every text that the template writes around arguments."""
        return self.key + self.text + self.other + self.end + self.between

    @property
    def core(self) -> str:
        """The text that ends a value, without the white space around it. A value cannot hold it."""
        return self.end.strip()

    def write(self, arguments: Mapping[str, Any]) -> str:
        """Return the arguments as a call holds them."""
        return self.between.join(
            f"{self.key}{name}{self.text}{value}{self.end}"
            if isinstance(value, str)
            else f"{self.key}{name}{self.other}{json.dumps(value, ensure_ascii=False)}{self.end}"
            for name, value in arguments.items()
        )


def learn_arguments(written: Callable[[dict[str, Any]], str], name: str) -> tuple[str, TaggedArguments] | None:
    """Learn how a template writes arguments one by one.

    Args:
        written: returns the template's text for a call with these arguments, "" if it fails.
        name: the name of the called tool.

    Returns:
        The text between the tool's name and its arguments, and the format; None if arguments are written otherwise.
    """
    one = _parts(written({KEY: VALUE}), name, KEY, VALUE)
    more = _parts(written({KEY: VALUE, OTHER_KEY: OTHER_VALUE}), name, KEY, VALUE)
    number = _parts(written({KEY: _NUMBER}), name, KEY, str(_NUMBER))
    if one is None or more is None or number is None or _nested_mark(written, name) != number[1]:
        return None
    opening, text, closing = one
    second = _between(more[2], OTHER_KEY, OTHER_VALUE)
    joint = None if second is None else second[0]
    if joint is None or second != (joint, text, closing) or more[:2] != one[:2] or number[::2] != one[::2]:
        return None
    whole = written({})
    empty = whole.split(name, 1)[1] if whole.count(name) == 1 else ""
    cut = _cut(opening, closing, joint, empty)
    if cut is None:
        return None
    middle, key, end = cut
    between = joint[len(end) : len(joint) - len(key)]
    found = TaggedArguments(key, text, number[1], end, between)
    # Without marks around it, a value could not be told from what follows it.
    return (middle, found) if found.core and text.strip() and number[1].strip() else None


def _parts(text: str, name: str, key: str, value: str) -> tuple[str, str, str] | None:
    """Return the text between a call's name and a key, between key and value, and after the value."""
    return _between(text.split(name, 1)[1], key, value) if text.count(name) == 1 else None


def _between(text: str, key: str, value: str) -> tuple[str, str, str] | None:
    if text.count(key) != 1 or text.count(value) != 1 or text.index(key) > text.index(value):
        return None
    before, rest = text.split(key)
    inside, after = rest.split(value)
    return before, inside, after


def _nested_mark(written: Callable[[dict[str, Any]], str], name: str) -> str | None:
    """Return the text between a key and a value of JSON; None if such values are written otherwise.

    Python's way of writing them counts, too: models write JSON nevertheless.
    """
    nested = {OTHER_KEY: [OTHER_VALUE, True]}
    text = written({KEY: nested})
    found = (_parts(text, name, KEY, form(nested)) for form in (json.dumps, _compact, repr))
    return next((parts[1] for parts in found if parts is not None), None)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _cut(opening: str, closing: str, joint: str, empty: str) -> tuple[str, str, str] | None:
    """Return the text before all arguments, before a key, and after a value.

    Args:
        opening: before the first key, the first two together.
        closing: after the last value, with what ends the call.
        joint: between a value and the next key.
        empty: what stands there in a call without arguments.
    """
    for cut in range(len(os.path.commonprefix([opening, empty])), -1, -1):
        key, rest = opening[cut:], empty[cut:]
        end = closing[: len(closing) - len(rest)]
        if (cut and empty[cut - 1] in _INSIDE) or not rest.strip() or not key.strip() or not closing.endswith(rest):
            continue
        if joint.startswith(end) and joint[len(end) :].endswith(key) and not re.search(r"[\w]$", opening[:cut]):
            return opening[:cut], key, end
    return None
