"""From what a caller asks for to a grammar in llguidance's own notation."""

from __future__ import annotations

from typing import Any

from rapid_integrations.config import StructuredOutput
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.library import load_llguidance

FEATURE = "structured output"

# Where JSON allows white space: a line break and an indentation at most. Without a bound a model may emit white space
# until its tokens run out, and small ones do. A schema with options of its own ("x-guidance") keeps to those.
JSON_OPTIONS: dict[str, Any] = {"whitespace_pattern": r"\n?[ \t]{0,16}"}


def grammar_of(structured: StructuredOutput) -> str:
    """Return the grammar; whether llguidance takes it shows when it is compiled.

    Raises:
        MissingExtraError: llguidance is not installed.
        ConfigurationError: a JSON schema that is not JSON.
    """
    matcher = load_llguidance(FEATURE).LLMatcher
    if structured.regex is not None:
        return str(matcher.grammar_from_regex(structured.regex))
    if structured.grammar is not None:
        return str(matcher.grammar_from_lark(structured.grammar))
    defaults = None if "x-guidance" in (structured.json_schema or {}) else JSON_OPTIONS
    try:
        return str(matcher.grammar_from_json_schema(structured.json_schema, defaults=defaults))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the JSON schema {structured.json_schema!r:.200} is not JSON: {error}") from None
