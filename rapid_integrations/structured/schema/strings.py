"""Strings: lengths, patterns, formats and encodings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rapid_integrations.structured.formats import FORMATS, json_text
from rapid_integrations.structured.library import is_followed
from rapid_integrations.structured.patterns import enforceable_patterns
from rapid_integrations.structured.schema.escapes import WITH_ESCAPES
from rapid_integrations.structured.schema.left_out import LeftOut
from rapid_integrations.structured.schema.numbers import whole_number
from rapid_integrations.structured.schema.result import Followed, Schema


def convert_strings(
    given: Mapping[str, Any], out: dict[str, Any], where: str, left_out: LeftOut, followed: Followed
) -> list[Schema]:
    """Convert the keywords of strings. Return schemas of further patterns, which have to hold, too."""
    for keyword in ("minLength", "maxLength"):
        if (length := whole_number(given.get(keyword))) is not None:
            out[keyword] = length
    patterns: list[str] = []
    if isinstance(written := given.get("pattern"), str):
        found = None if left_out.gives_up("pattern") else enforceable_patterns(written)
        if found is None:
            left_out.add(where, f"pattern {written!r:.80}")
        patterns += found or ()
    name = given.get("format")
    form = FORMATS.get(name.lower()) if isinstance(name, str) else None
    if form is None and given.get("contentEncoding") in ("base64", "base64url"):
        form = FORMATS[given["contentEncoding"]]
    if form is None and given.get("contentMediaType") == "application/json" and not given.get("contentEncoding"):
        form = json_text(followed(given.get("contentSchema")))
    strings = out.get("type", "string") == "string" or "string" in out.get("type", ())
    if name == "regex" and strings:
        left_out.add(where, "format 'regex'")
    if form is not None and strings:
        if left_out.gives_up("pattern"):
            left_out.add(where, f"format {str(name or given.get('contentEncoding') or 'JSON')!r:.40}")
        else:
            patterns.append(f"^(?:{form})$")
    if patterns:
        out["pattern"] = patterns.pop(0)
        _bound(out, where, left_out)
    kind: dict[str, Any] = {"type": "string"} if out.get("type") == "string" else {}
    return [{**kind, "pattern": each} for each in patterns]


def _bound(out: dict[str, Any], where: str, left_out: LeftOut) -> None:
    """Leave the bounds of a string's length out if the library cannot follow them beside its pattern."""
    lengths: dict[str, Any] = {keyword: out[keyword] for keyword in ("minLength", "maxLength") if keyword in out}
    asked: dict[str, Any] = {**WITH_ESCAPES, "type": "string", "pattern": out["pattern"], **lengths}
    if lengths and not is_followed(json.dumps(asked), b'"'):
        for keyword in lengths:
            del out[keyword]
            left_out.add(where, f"{keyword} beside its pattern")
