"""Structured output: schemas for the decoder, instructions for the prompt, and the parser of the answer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_partial_json
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, PydanticUserError, TypeAdapter

from rapid_integrations import Prompt
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.prompt.segmentation import segment
from rapid_integrations.structured.checking import unenforced, unmet
from rapid_integrations.structured.class_schema import class_schema, type_schema
from rapid_integrations.structured.closed import closed

METHODS = ("json_schema", "function_calling", "json_mode")
_SCHEMA_WORDS = ("type", "properties", "$ref", "$defs", "anyOf", "oneOf", "allOf", "enum", "const")


def json_schema_of(schema: Any) -> dict[str, Any]:
    """Return the JSON schema of a class (pydantic, dataclass, TypedDict), a type, a JSON schema or an OpenAI function.

    Raises:
        ConfigurationError: no JSON schema can be made of it.
    """
    try:
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            return class_schema(schema)
        if _is_json_schema(schema):
            found = schema
        elif _is_read_as_a_dict(schema) or _is_old_pydantic(schema):
            # LangChain reads the descriptions of a TypedDict's keys; pydantic does not.
            found = convert_to_json_schema(schema)
        else:
            return type_schema(schema)
    except (PydanticUserError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"no JSON schema can be made of {schema!r:.200}: give a pydantic class, a dataclass, a TypedDict, a JSON "
            f"schema or an OpenAI function ({error})"
        ) from error
    enforced: dict[str, Any] = closed(found)
    return enforced


def told_as(schema: Any) -> Any:
    """Return the schema in a form that LangChain's tracing accepts. It fails for some kinds of schema."""
    try:
        convert_to_json_schema(schema)
    except Exception:  # the inspection of arbitrary objects may raise anything
        return json_schema_of({"type": "object"} if schema is None else schema)
    return schema


def instruction_for(json_schema: dict[str, Any], prompt: Iterable[str], tools: bool) -> str | None:
    """Return an instruction that shows the schema to the model, or None if it is not needed.

    The decoder enforces the form, but the model needs the schema to choose good values.

    Args:
        json_schema: the enforced schema.
        prompt: the texts that the model reads. If they already contain the schema, as the format instructions of
            LangChain's parsers do, no instruction is needed.
        tools: whether the answer may be a tool call instead.
    """
    properties = json_schema.get("properties")
    if not any(key not in ("type", "title", "description", "additionalProperties") for key in json_schema):
        return None  # any object
    written = json.dumps(json_schema if not properties else properties, ensure_ascii=False)
    if any(written in text for text in prompt):
        return None
    when = "As soon as no further call is needed, answer" if tools else "Answer"
    what = "one JSON object that follows" if json_schema.get("type") == "object" else "JSON that follows"
    return f"\n\n{when} with {what} this JSON schema:\n{json.dumps(json_schema, ensure_ascii=False)}"


def with_instruction(messages: list[dict[str, Any]], instruction: str) -> list[dict[str, Any]]:
    """Return the engine's messages with `instruction` appended to the last one from a human.

    At this place it does not change the prompt before that message, so answers with and without a schema share the
    document's part of the prefix cache. It is outside the context, so the drafter reads it, too.
    """
    places = [i for i, message in enumerate(messages) if message["role"] == "user"] or [len(messages) - 1]
    changed = list(messages)
    last = messages[places[-1]]
    changed[places[-1]] = {**last, "content": with_words_behind(last["content"], instruction)}
    return changed


def with_words_behind(content: str | Prompt, instruction: str) -> Prompt:
    """Return a prompt with `instruction` appended.

    Context and question are located first, so that the schema is not taken for the question.
    """
    given = Prompt(text=content) if isinstance(content, str) else content
    spans, query, method = given.context_spans, given.query, given.segmentation
    if not spans and given.has_context:
        found = segment(given.text)
        spans, method = found.context_spans, found.method
        query = query or (found.query if found.query.strip() else None)
    return Prompt.retrieved(given.text + instruction, spans, query, method)


class StructuredAnswer(BaseCumulativeTransformOutputParser[Any]):
    """Parses an answer as an object of `answer_schema`. While the answer streams, it yields partial objects.

    Raises:
        OutputParserException: the answer was cut off, or its class does not accept it.
    """

    answer_schema: Any

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the object; None if too little of it has been written."""
        text = result[0].text
        if (
            not text.strip()
            and isinstance(result[0], ChatGeneration)
            and getattr(result[0].message, "tool_calls", None)
        ):
            return None  # the model calls a tool instead
        if partial and (not isinstance(result[0], ChatGeneration) or _finish_reason(result[0].message) is None):
            try:
                return self._object_of(parse_partial_json(text))
            except ValueError:
                return None
        try:
            return self._checked(text)
        except ValueError as error:  # pydantic's errors, too
            reason = _finish_reason(result[0].message) if isinstance(result[0], ChatGeneration) else None
            raise OutputParserException(
                f"no {getattr(self.answer_schema, '__name__', 'object')} could be made of the answer {text!r:.200} "
                f"(finish_reason {reason!r}). Its text follows the JSON schema, so either it was cut off (raise "
                "max_tokens, or drop the stop strings), or the class demands more than its schema says: "
                f"{error}",
                llm_output=text,
            ) from error

    def parse(self, text: str) -> Any:
        """Return the object of a whole answer."""
        return self.parse_result([Generation(text=text)])

    def _object_of(self, value: Any) -> Any:
        schema = self.answer_schema
        if schema is None or _is_read_as_a_dict(schema):
            return value
        if _is_old_pydantic(schema):
            return schema.parse_obj(value)
        return TypeAdapter(schema).validate_python(value)

    def _checked(self, text: str) -> Any:
        """Return the object. For schemas other than pydantic classes, check what the decoder could not enforce."""
        schema = self.answer_schema
        if schema is not None and (not isinstance(schema, type) or not issubclass(schema, BaseModel)):
            wanted = json_schema_of(schema)
            if unenforced(wanted) and (found := unmet(wanted, json.loads(text))):
                raise ValueError("; ".join(found))
        if schema is None or _is_read_as_a_dict(schema) or _is_old_pydantic(schema):
            return self._object_of(json.loads(text))
        return TypeAdapter(schema).validate_json(text)  # a strict class takes a date as text from JSON only


def _is_read_as_a_dict(schema: Any) -> bool:
    is_typed_dict = hasattr(schema, "__required_keys__")  # of `typing` or of `typing_extensions`
    return isinstance(schema, (dict, BaseTool)) or is_typed_dict or inspect.isroutine(schema)


def _is_old_pydantic(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema) and not issubclass(schema, BaseModel)


def _is_json_schema(schema: Any) -> bool:
    if not isinstance(schema, dict) or schema.get("type") == "function" or "parameters" in schema:
        return False  # it is OpenAI's declaration of a function
    return any(word in schema for word in _SCHEMA_WORDS)


def _calls(message: BaseMessage) -> bool:
    return isinstance(message, AIMessage) and bool(message.tool_calls)


def _finish_reason(message: BaseMessage) -> str | None:
    reason: str | None = message.response_metadata.get("finish_reason")
    return reason
