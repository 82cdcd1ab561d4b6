"""The kinds of value that a parameter takes: a string, which a tagged call writes as it is, or any other, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["text", "other"]

BOTH: frozenset[Kind] = frozenset(("text", "other"))
_TEXT: frozenset[Kind] = frozenset(("text",))
_OTHER: frozenset[Kind] = frozenset(("other",))
_NO_STRINGS = frozenset(  # with the common wrong names of types
    "null boolean integer number array object int long float double bool list tuple dict none nil".split()
)
_DEEPEST = 20  # references and combinations within one another


def kinds_of(schema: Any, root: Any, depth: int = 0) -> frozenset[Kind]:
    """Return the kinds of value that a schema allows.

    Args:
        schema: of one parameter. Anything that is no schema allows both.
        root: the schema in which its `$ref`s are looked up.
    """
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return BOTH
    found = BOTH
    if (target := referred(schema, root)) is not None:
        found &= kinds_of(target, root, depth + 1)
    if "const" in schema:
        found &= _kind(schema["const"])
    if isinstance(values := schema.get("enum"), (list, tuple)) and values:
        found &= frozenset[Kind]().union(*map(_kind, values))
    if (types := schema.get("type")) is not None:
        named = frozenset[Kind]().union(*map(_of_type, types if isinstance(types, (list, tuple)) else [types]))
        found &= named | _OTHER if schema.get("nullable") is True else named
    for keyword in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(keyword), (list, tuple)) and options:
            found &= frozenset[Kind]().union(*(kinds_of(each, root, depth + 1) for each in options))
    if isinstance(together := schema.get("allOf"), (list, tuple)):
        for each in together:
            found &= kinds_of(each, root, depth + 1)
    return found or BOTH


def referred(schema: Mapping[str, Any], root: Any) -> Any:
    """Return what a local `$ref` points to; None without one, or if it points elsewhere."""
    place = schema.get("$ref")
    if not isinstance(place, str) or not place.startswith("#"):
        return None
    found = root
    for step in place[1:].split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found


def _kind(value: Any) -> frozenset[Kind]:
    return _TEXT if isinstance(value, str) else _OTHER


def _of_type(name: Any) -> frozenset[Kind]:
    name = name.lower() if isinstance(name, str) else ""
    if name in ("string", "str", "text", "file"):
        return _TEXT
    return _OTHER if name in _NO_STRINGS else BOTH
