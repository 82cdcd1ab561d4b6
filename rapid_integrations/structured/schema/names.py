"""Names of properties: what they may be, and `propertyNames`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.bounds import MAX_NAME, MAX_PROPERTIES, half_character, no_text, too_much
from rapid_integrations.structured.formats import FORMATS
from rapid_integrations.structured.patterns import enforceable_patterns
from rapid_integrations.structured.schema.left_out import ENFORCED_BY_OTHERS
from rapid_integrations.structured.schema.numbers import whole_number

_SAYS_NOTHING = ("title", "description", "examples", "default", "$comment", "$id", "$schema", "$anchor")


def check_name(name: Any, where: str) -> str:
    """Return the name of a property.

    Raises:
        ConfigurationError: it is not a string, holds half of a surrogate pair, or is too long.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"the JSON schema is not JSON at {where}: the name {name!r:.100} is not a string")
    if (at := half_character(name)) is not None:
        raise no_text(f"a name in the JSON schema at {where}", name, at)
    if len(name) > MAX_NAME:
        how = f"has a name of {len(name):,} characters at {where}; {MAX_NAME:,} are the most"
        raise too_much("the JSON schema", how, "Shorten it")
    return name


def escaped(name: Any) -> str:
    """Return a name, or the beginning of a long one, as it stands in a JSON pointer."""
    return str(name)[:80].replace("~", "~0").replace("/", "~1")


def convert_names(names: Mapping[str, Any], out: dict[str, Any], where: str) -> None:
    """Express the allowed names of properties by other keywords, if possible, as for pydantic's dictionaries.

    Args:
        names: the schema of the names.
        out: what the other keywords of the object have become.
        where: the JSON pointer of the object.

    Raises:
        ConfigurationError: a name is too long, or no text.
    """
    if out.get("properties") or out.get("patternProperties"):
        return
    values = out.get("additionalProperties", True)
    fixed = names.get("enum", [names["const"]] if "const" in names else None)
    pattern, form = names.get("pattern"), names.get("format")
    form = FORMATS.get(form.lower()) if isinstance(form, str) else None
    least, most = whole_number(names.get("minLength")), whole_number(names.get("maxLength"))
    if isinstance(fixed, (list, tuple)):
        said: tuple[str, ...] = ("enum",) if "enum" in names else ("const",)
        texts = [each for each in fixed if isinstance(each, str)]  # names are always text
        if len(texts) > MAX_PROPERTIES:
            return
        out["properties"] = {check_name(each, f"{where}/propertyNames"): values for each in texts}
    elif isinstance(pattern, str) and (parts := enforceable_patterns(pattern)) and len(parts) == 1:
        said = ("pattern",)
        out["patternProperties"] = {parts[0]: values}
    elif form is not None and pattern is None:
        said = ("format",)
        out["patternProperties"] = {f"^(?:{form})$": values}
    elif least or most:
        said = ("minLength", "maxLength")
        out["patternProperties"] = {rf"^(?s:.{{{least or 0},{'' if most is None else most}}})$": values}
    else:
        return
    out["additionalProperties"] = False
    if all(key in said or key in _SAYS_NOTHING or key == "type" and each == "string" for key, each in names.items()):
        out[ENFORCED_BY_OTHERS] = ("propertyNames",)
