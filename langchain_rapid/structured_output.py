"""`with_structured_output`: the decoder keeps to the schema, and the answer is read as what was asked for."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from rapid_integrations import Prompt
from rapid_integrations.json_schema import closed
from rapid_integrations.segmentation import segment
from rapid_integrations.structured.checking import unenforced, unmet
from rapid_integrations.structured.class_schema import class_schema

METHODS = ("json_schema", "function_calling", "json_mode")
_SCHEMA_WORDS = ("type", "properties", "$ref", "$defs", "anyOf", "oneOf", "allOf", "enum", "const")


def json_schema_of(schema: Any) -> dict[str, Any]:
    """Return the JSON schema of a pydantic class, a TypedDict, a JSON schema or an OpenAI function."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return class_schema(schema)
    elif _is_json_schema(schema):
        found = schema
    else:
        found = convert_to_json_schema(schema)
    enforced: dict[str, Any] = closed(found)
    return enforced


def asks_for_schema(response_format: Any) -> bool:
    """Return whether OpenAI's `response_format` brings a JSON schema, which the model must be told of."""
    return isinstance(response_format, dict) and response_format.get("type") == "json_schema"


def instruction_for(json_schema: dict[str, Any], *, beside_tools: bool = False) -> str:
    """Return what tells the model of the schema: the decoder enforces the form, the words come from the model."""
    begin = "Call a tool, or answer" if beside_tools else "Answer"
    schema = json.dumps(json_schema, ensure_ascii=False)
    return f"\n\n{begin} with one JSON object that follows this JSON schema:\n{schema}"


def with_instruction(messages: list[dict[str, Any]], instruction: str) -> list[dict[str, Any]]:
    """Return the engine's messages with `instruction` behind the last one from a human.

    Where its context stands is found out before: the schema must not pass for the question.
    """
    places = [i for i, message in enumerate(messages) if message["role"] == "user"] or [len(messages) - 1]
    content = messages[places[-1]]["content"]
    if isinstance(content, Prompt):
        told = content.model_copy(update={"text": content.text + instruction, "query": content.query})
    else:
        found = segment(content)
        told = Prompt(
            text=content + instruction,
            context_spans=found.context_spans,
            query=found.query if found.query.strip() else None,
            segmentation=found.method,
        )
    changed = list(messages)
    changed[places[-1]] = {**messages[places[-1]], "content": told}
    return changed


class StructuredAnswer(BaseCumulativeTransformOutputParser[Any]):
    """Reads an answer as an object of `answer_schema`; while it streams, as far as it is written.

    Raises:
        OutputParserException: an answer that was cut off, or that its class does not accept.
    """

    answer_schema: Any

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the object; None where too little of it is there."""
        text = result[0].text
        if partial and (not isinstance(result[0], ChatGeneration) or _finish_reason(result[0].message) is None):
            try:
                return self._object_of(parse_partial_json(text))
            except ValueError:
                return None
        try:
            return self._checked(json.loads(text))
        except ValueError as error:  # pydantic's errors, too
            reason = _finish_reason(result[0].message) if isinstance(result[0], ChatGeneration) else None
            raise OutputParserException(
                f"no {getattr(self.answer_schema, '__name__', 'object')} could be made of the answer {text!r:.200} "
                f"(finish_reason {reason!r}). It keeps to the JSON schema as far as it goes, so either it was cut off "
                "(raise max_tokens, or drop the stop strings), or the class demands more than its schema says: "
                f"{error}",
                llm_output=text,
            ) from error

    def parse(self, text: str) -> Any:
        """Return the object that a whole answer is."""
        return self.parse_result([Generation(text=text)])

    def _object_of(self, value: Any) -> Any:
        schema = self.answer_schema
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            return schema.model_validate(value)
        if isinstance(schema, type) and is_basemodel_subclass(schema):
            return schema.parse_obj(value)  # type: ignore[attr-defined]  # pydantic 1
        return value

    def _checked(self, value: Any) -> Any:
        """Return an object of a dictionary's schema if it has what the decoder could not enforce, too."""
        schema = self.answer_schema
        if not isinstance(schema, type) or not issubclass(schema, BaseModel):
            wanted = json_schema_of(schema)
            if unenforced(wanted) and (found := unmet(wanted, value)):
                raise ValueError("; ".join(found))
        return self._object_of(value)


def _is_json_schema(schema: Any) -> bool:
    if not isinstance(schema, dict) or schema.get("type") == "function" or "parameters" in schema:
        return False  # OpenAI's declaration of a function
    return any(word in schema for word in _SCHEMA_WORDS)


def _finish_reason(message: BaseMessage) -> str | None:
    reason: str | None = message.response_metadata.get("finish_reason")
    return reason
