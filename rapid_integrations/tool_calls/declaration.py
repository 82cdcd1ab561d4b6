"""Declarations of tools: OpenAI's form, and the forms of other APIs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.bounds import check_schema

_NAME = re.compile(r"[\w./:-]{1,128}")
_SCHEMA_KEYS = ("parameters", "inputSchema", "input_schema")  # OpenAI's, MCP's and Anthropic's


def declaration(tool: Any) -> Mapping[str, Any]:
    """Return a tool's declaration as {"type": "function", "function": {"name", "description", "parameters"}}.

    The forms of OpenAI (Chat Completions and Responses), MCP and Anthropic are accepted. Parameters that are true allow
    anything, and missing ones allow nothing.

    Raises:
        ConfigurationError: it has another form, no usable name, or its parameters are not a schema.
    """
    given: Any = tool
    if isinstance(tool, Mapping) and "function" not in tool:
        key = next((key for key in _SCHEMA_KEYS if key in tool), None)
        if key is not None or tool.get("type") == "function":
            fields: dict[str, Any] = {
                name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None
            }
            if key is not None:
                fields["parameters"] = tool[key]
            given = {"type": "function", "function": fields}
    function = given.get("function") if isinstance(given, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            'a tool is {"type": "function", "function": {"name": ..., "description": ..., "parameters": ...}} with a '
            f"name of at most 128 letters, digits, '_', '-', '.', ':' and '/'; given: {str(tool)[:200]!r}"
        )
    parameters = function.get("parameters")
    if isinstance(parameters, bool):
        parameters = {"type": "object", **({} if parameters else {"properties": {}, "additionalProperties": False})}
        given = {**given, "function": {**function, "parameters": parameters}}
    if not isinstance(parameters, (Mapping, type(None))):
        raise ConfigurationError(
            f"the parameters of tool {name!r} must be a JSON schema; given: {str(parameters)[:200]!r}"
        )
    check_schema(given, f"the declaration of tool {name!r}")
    found: Mapping[str, Any] = given
    return found


def completed(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a declaration in which nothing is missing that chat templates read: descriptions and parameters.

    Several templates fail without (GPT-OSS, Apertus, Hermes, Seed-OSS, Command), though OpenAI's API asks for neither.
    """
    function = tool["function"]
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties")
    named = properties if isinstance(properties, Mapping) else {}
    described = {
        name: {**each, "description": each.get("description") or ""} if isinstance(each, Mapping) else each
        for name, each in named.items()
    }
    return {
        **tool,
        "function": {
            **function,
            "description": function.get("description") or "",
            "parameters": {"type": "object", "required": [], **parameters, "properties": described},
        },
    }
