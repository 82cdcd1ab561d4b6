"""Arguments that a call writes as literals: `city="Bern", days=3` (LFM2.5), `city:<|"|>Bern<|"|>,days:3` (Gemma 4)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rapid_integrations.tool_calls.tagged import KEY, OTHER_KEY, OTHER_VALUE, VALUE

_NUMBER = 48_151
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_PYTHONS = ("'", '"')
_BLANK = re.compile(r"\s*")
_NAME = re.compile(r"[\w.-]+")
_WORD = re.compile(r"-?[\w.+-]+")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_DEEPEST = 100


@dataclass(frozen=True)
class LiteralArguments:
    """The text around arguments: `NAME assign VALUE`, with `between` in between.

    Attributes:
        assign: the text between a name and its value.
        between: the text between two arguments.
        quote: the mark around strings, in nested values, too. If it is Python's, values are JSON or Python's.
        by_name: whether the template sorts arguments by their names.
    """

    assign: str
    between: str
    quote: str
    by_name: bool = False

    key = ""  # nothing stands before a name

    @property
    def own_quote(self) -> str | None:
        """The quotation mark, if it is not one of Python's or JSON's."""
        return None if self.quote in _PYTHONS else self.quote

    @property
    def written(self) -> str:
        """Every text that the template writes around arguments."""
        return self.assign + self.between + self.quote

    def write(self, arguments: Mapping[str, Any]) -> str:
        """Return the arguments as a call holds them."""
        return self.between.join(f"{name}{self.assign}{self.literal(value)}" for name, value in arguments.items())

    def literal(self, value: Any) -> str:
        """Return a value as a call holds it."""
        if self.own_quote is None:
            plain = isinstance(value, str) and not any(sign in value for sign in ("\\", "\n", *_PYTHONS))
            return self.quote + value + self.quote if plain else json.dumps(value, ensure_ascii=False)
        if isinstance(value, str):
            return self.quote + value + self.quote
        if isinstance(value, Mapping):
            return "{" + ",".join(f"{name}:{self.literal(each)}" for name, each in value.items()) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + ",".join(map(self.literal, value)) + "]"
        return json.dumps(value)


def learn_literals(written: Callable[[dict[str, Any]], str], name: str) -> tuple[str, LiteralArguments] | None:
    """Learn how a template writes arguments as literals; see `learn_arguments`."""
    texts = [written(given) for given in ({KEY: VALUE}, {KEY: _NUMBER}, {KEY: VALUE, OTHER_KEY: OTHER_VALUE})]
    if any(text.count(name) != 1 for text in texts):
        return None
    one, number, two = (text.split(name)[1] for text in texts)
    if number.count(KEY) != 1 or number.count(str(_NUMBER)) != 1:
        return None
    opening, rest = number.split(KEY)
    assign, _, closing = rest.partition(str(_NUMBER))
    head, tail = f"{opening}{KEY}{assign}", closing
    if not (one.startswith(head) and one.endswith(tail)) or not assign.strip() or not tail.strip():
        return None
    quote = one[len(head) : len(one) - len(tail)].split(VALUE)[0]
    if not quote or one != f"{head}{quote}{VALUE}{quote}{tail}":
        return None
    first = f"{head}{quote}{VALUE}{quote}"
    second = f"{OTHER_KEY}{assign}{quote}{OTHER_VALUE}{quote}{tail}"
    between = two[len(first) : len(two) - len(second)]
    if two != first + between + second or not between or written({}).split(name)[-1] != opening + tail:
        return None
    turned = written({OTHER_KEY: OTHER_VALUE, KEY: VALUE})
    found = LiteralArguments(assign, between, quote, by_name=turned == texts[2])
    nested = {OTHER_KEY: [OTHER_VALUE, True]}
    forms = [json.dumps(nested), repr(nested)] if found.own_quote is None else [found.literal(nested)]
    behind = written({KEY: nested}).split(name)[-1]
    return (opening, found) if behind in [head + form + tail for form in forms] else None


def read_literals(text: str, at: int, literals: LiteralArguments, tail: str) -> tuple[dict[str, Any], int, str | None]:
    """Read the arguments at `at`, up to what ends the call.

    Returns:
        The complete arguments, the position behind them, and what is wrong there, None if nothing is.
    """
    arguments: dict[str, Any] = {}
    end = at
    closing, assign, between = tail.strip(), literals.assign.strip(), literals.between.strip()
    while not text.startswith(closing, place := _skip(text, end)):
        if arguments and text.startswith(between, place):
            place = _skip(text, place + len(between))
        named = _NAME.match(text, place)
        if named is None or not text.startswith(assign, _skip(text, named.end())):
            return arguments, end, f"{closing} is missing after it" if place == len(text) else "it is no argument"
        try:
            value, end = _literal(text, _skip(text, _skip(text, named.end()) + len(assign)), literals.own_quote, 0)
        except ValueError:
            return arguments, end, f"the argument {named[0]!r} has no value that can be read"
        arguments[named[0]] = value
    return arguments, place, None


def _literal(text: str, at: int, quote: str | None, depth: int) -> tuple[Any, int]:
    """Return the literal at `at` and its end.

    Raises:
        ValueError: there is none, or it does not end.
    """
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    if quote is not None and text.startswith(quote, at):
        end = text.index(quote, at + len(quote))
        return text[at + len(quote) : end], end + len(quote)
    if (string := _STRING.match(text, at)) is not None:
        return _unquoted(string[0]), string.end()
    if text[at : at + 1] in ("[", "{"):
        return _container(text, at, quote, depth)
    word = _WORD.match(text, at)
    if word is None:
        raise ValueError("no literal")
    return (_WORDS[word[0]] if word[0] in _WORDS else _number(word[0])), word.end()


def _container(text: str, at: int, quote: str | None, depth: int) -> tuple[Any, int]:
    is_list = text[at] == "["
    items: list[Any] = []
    pairs: dict[str, Any] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != ("]" if is_list else "}"):
        if items or pairs:
            at = _skip(text, _expect(text, at, ","))
        if is_list:
            value, at = _literal(text, at, quote, depth + 1)
            items.append(value)
        else:
            quoted = text.startswith((*_PYTHONS, *([quote] if quote else [])), at)
            bare = None if quoted else _NAME.match(text, at)
            name, at = (bare[0], bare.end()) if bare else _literal(text, at, quote, depth + 1)
            value, at = _literal(text, _skip(text, _expect(text, _skip(text, at), ":")), quote, depth + 1)
            pairs[str(name)] = value
        at = _skip(text, at)
    return (items if is_list else pairs), at + 1


def _unquoted(string: str) -> str:
    """Return what a string in quotation marks says. Models write line breaks and the like without escapes, too."""
    return _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1]) or _by_number(escape[1]), string[1:-1])


def _by_number(escape: str) -> str:
    return chr(int(escape[1:], 16)) if len(escape) > 1 else escape


def _number(word: str) -> int | float:
    value = json.loads(word)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("no number")
    return value


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign} is missing")
    return at + 1


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return at if match is None else match.end()
