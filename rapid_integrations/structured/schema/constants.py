"""Constants: `const` and `enum`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.bounds import half_character, no_text, too_much
from rapid_integrations.structured.schema.left_out import LeftOut
from rapid_integrations.structured.schema.names import check_name, escaped
from rapid_integrations.structured.schema.numbers import EXACT_INTEGER, too_large

MAX_CONSTANT = 20_000
"""Maximum length of a string that an answer must hold as it is, in characters."""


def convert_constants(given: Mapping[str, Any], out: dict[str, Any], where: str, left_out: LeftOut) -> None:
    """Convert `const` and `enum`.

    Raises:
        ConfigurationError: a constant is not JSON, or a string in it is too long.
    """
    if "const" in given:
        if too_large(given["const"]):
            left_out.add(where, f"const {str(given['const']):.40}")
            out.setdefault("type", "number")
        else:
            out["const"] = _constant(given["const"], f"{where}/const", left_out)
    values = given.get("enum")
    if isinstance(values, (list, tuple)):
        fine = [each for each in values if not too_large(each)]
        if len(fine) < len(values):
            left_out.add(where, "numbers of the enum that are too large")
            values = fine or None
    if isinstance(values, (list, tuple)):
        found = [_constant(value, f"{where}/enum/{index}", left_out) for index, value in enumerate(values)]
        if given.get("nullable") is True and None not in found:
            found.append(None)
        out["enum"] = found


def _constant(value: Any, where: str, left_out: LeftOut) -> Any:
    if isinstance(value, str):
        if (at := half_character(value)) is not None:
            raise no_text(f"the JSON schema at {where}", value, at)
        if len(value) > MAX_CONSTANT:
            how = f"has a string of {len(value):,} characters at {where}; {MAX_CONSTANT:,} are the most"
            raise too_much("the JSON schema", how, "Shorten it")
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"the JSON schema is not JSON at {where}: {value} is not a JSON number")
        if abs(value) > EXACT_INTEGER:
            left_out.add(where, f"{value!r:.40} exactly")
        return value
    if isinstance(value, (list, tuple)):
        return [_constant(each, f"{where}/{index}", left_out) for index, each in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            check_name(key, where): _constant(each, f"{where}/{escaped(key)}", left_out) for key, each in value.items()
        }
    raise ConfigurationError(
        f"the JSON schema is not JSON at {where}: {type(value).__name__} {value!r:.100} is not a JSON value"
    )
