"""The required form of an answer."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from rapid_integrations.config.settings import Settings


class StructuredOutput(Settings):
    """The required form of an answer, enforced token by token. Give exactly one of the first three fields.

    - `json_schema`: a JSON schema; the answer is JSON that satisfies it. White space is bounded.
    - `regex`: a regular expression (Rust's syntax: no look-around) that the whole answer matches.
    - `grammar`: a context-free grammar in Lark's syntax as llguidance reads it, with a rule `start`.
    - `checked`: whether a complete answer is checked against the parts of its JSON schema that a grammar cannot express
      (`not`, `uniqueItems`). A failed check raises IncompleteOutputError.

    An answer that ends with finish_reason "eos" is complete. One that `max_new_tokens` or a stop string cuts is not.
    """

    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    grammar: str | None = None
    checked: bool = True

    @model_validator(mode="after")
    def _exactly_one_is_given(self) -> StructuredOutput:
        given = [name for name in ("json_schema", "regex", "grammar") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of json_schema, regex and grammar; given: {', '.join(given) or 'none'}")
        return self
