"""Objects: their properties, by name or by pattern, and how many there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rapid_integrations.structured.bounds import MAX_PROPERTIES, too_much
from rapid_integrations.structured.library import is_followed
from rapid_integrations.structured.patterns import enforceable_patterns
from rapid_integrations.structured.schema.escapes import WITH_ESCAPES
from rapid_integrations.structured.schema.left_out import LeftOut
from rapid_integrations.structured.schema.names import check_name, convert_names, escaped
from rapid_integrations.structured.schema.numbers import whole_number
from rapid_integrations.structured.schema.result import Followed, Schema, Within


def convert_object(
    given: Mapping[str, Any], out: dict[str, Any], where: str, left_out: LeftOut, within: Within, followed: Followed
) -> None:
    """Convert the keywords of objects.

    Raises:
        ConfigurationError: there are too many properties, a name is wrong, or a schema within them.
    """
    written = given.get("properties")
    if isinstance(written, Mapping):
        if len(written) > MAX_PROPERTIES:
            how = f"has {len(written):,} properties at {where or '/'}; {MAX_PROPERTIES:,} are the most"
            raise too_much("the JSON schema", how, "Split it")
        out["properties"] = {
            check_name(name, f"{where}/properties"): within(each, f"{where}/properties/{escaped(name)}")
            for name, each in written.items()
        }
    if isinstance(required := given.get("required"), (list, tuple)):
        if len(required) > MAX_PROPERTIES:
            how = f"requires {len(required):,} properties at {where or '/'}; {MAX_PROPERTIES:,} are the most"
            raise too_much("the JSON schema", how, "Split it")
        found = [check_name(name, f"{where}/required") for name in required]
        if found:
            out["required"] = list(dict.fromkeys(found))
    if (more := given.get("additionalProperties")) is not None:
        out["additionalProperties"] = within(more, f"{where}/additionalProperties")
    patterned = given.get("patternProperties")
    if isinstance(patterned, Mapping) and patterned:
        _convert_patterned(patterned, out, where, left_out, within)
    names = given.get("propertyNames")
    if isinstance(names, Mapping) and names:
        convert_names(followed(names), out, where)
    _convert_counts(given, out, where, left_out)


def close(schema: dict[str, Any]) -> None:
    """Allow only declared properties. A required property that is not declared may hold anything."""
    properties = schema.setdefault("properties", {})
    for name in schema.get("required", ()):
        properties.setdefault(name, True)
    schema["additionalProperties"] = False


def _convert_patterned(
    patterned: Mapping[str, Any], out: dict[str, Any], where: str, left_out: LeftOut, within: Within
) -> None:
    found: dict[str, Schema] = {}
    loose: list[Schema] = []  # of names that cannot be told from the others
    told = {pattern: enforceable_patterns(pattern) if isinstance(pattern, str) else None for pattern in patterned}
    known = {parts[0]: True for parts in told.values() if parts is not None and len(parts) == 1}
    asked = {**WITH_ESCAPES, "type": "object", "patternProperties": known}
    costly = known and not is_followed(json.dumps(asked), b'{"')
    for pattern, each in patterned.items():
        parts = told[pattern]
        if parts is None or len(parts) > 1 or costly or left_out.gives_up("patternProperties"):
            left_out.add(where, f"patternProperties {pattern!r:.80}")
            loose.append(within(each, f"{where}/patternProperties"))
        else:
            found[parts[0]] = within(each, f"{where}/patternProperties/{escaped(pattern)}")
    if found:
        out["patternProperties"] = found
    if loose and (others := out.get("additionalProperties", True)) is not True:
        loose = loose if others is False else [*loose, others]
        out["additionalProperties"] = loose[0] if len(loose) == 1 else {"anyOf": loose}


def _convert_counts(given: Mapping[str, Any], out: dict[str, Any], where: str, left_out: LeftOut) -> None:
    optional = set(out.get("properties", ())) - set(out.get("required", ()))
    for keyword in ("minProperties", "maxProperties"):
        count = whole_number(given.get(keyword))
        if count is None or keyword == "minProperties" and count <= len(out.get("required", ())):
            continue
        if left_out.gives_up("minProperties") or optional and count > 1:
            left_out.add(where, keyword)
            continue
        out[keyword] = count
        if keyword == "minProperties" and count > len(out.get("required", ())) + 1:
            left_out.add(where, "minProperties, of which a name that is repeated counts once")
