"""Translation of LangChain's and OpenAI's settings to this package's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_rapid.structured_output import json_schema_of
from rapid_integrations import StructuredOutput
from rapid_integrations.errors import ConfigurationError


def structured_of(response_format: Any) -> StructuredOutput | None:
    """Translate OpenAI's `response_format`: a dictionary as in either of its APIs, or a class.

    Raises:
        ConfigurationError: the format is of another kind.
    """
    if isinstance(response_format, type):
        return StructuredOutput(json_schema=json_schema_of(response_format))
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    found = response_format.get("json_schema", response_format) if kind == "json_schema" else response_format
    schema = found.get("schema") if isinstance(found, Mapping) else None
    if kind == "json_object" and schema is None:
        return StructuredOutput(json_schema={"type": "object"})
    if kind not in ("json_object", "json_schema") or schema is None:
        raise ConfigurationError(
            f"response_format={response_format!r:.200} is not one of {{'type': 'text'}}, {{'type': 'json_object'}} and "
            "{'type': 'json_schema', 'json_schema': {'schema': ...}}; with_structured_output takes classes, too"
        )
    return StructuredOutput(json_schema=json_schema_of(schema))


def choice_of(tool_choice: str | bool | dict[str, Any] | None) -> str | None:
    """Translate a tool choice from LangChain's, OpenAI's or Anthropic's form to the engine's.

    Raises:
        ConfigurationError: the choice has another form.
    """
    if isinstance(tool_choice, Mapping):
        function = tool_choice.get("function")
        name = (function if isinstance(function, Mapping) else tool_choice).get("name") or tool_choice.get("type")
        if not isinstance(name, str) or name in ("function", "tool"):
            raise ConfigurationError(
                f"tool_choice={tool_choice!r:.200} does not name a tool: give a name, 'any', 'auto', 'none', or "
                '{"type": "function", "function": {"name": ...}}'
            )
        tool_choice = name
    if isinstance(tool_choice, bool):
        return "required" if tool_choice else None
    return "required" if tool_choice == "any" else tool_choice
