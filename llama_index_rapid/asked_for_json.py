"""Schemas of prompts in which LlamaIndex asks for JSON in words. The decoder then enforces them.

Selectors, question generators and programs for models without tools describe the answer's form in the prompt. For some,
the template's parser tells the schema. A program renders its prompt itself, so the schema must be read from the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.indices.vector_store.retrievers.auto_retriever.output_parser import VectorStoreQueryOutputParser
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.output_parsers import PydanticOutputParser, SelectionOutputParser
from llama_index.core.output_parsers.pydantic import PYDANTIC_FORMAT_TMPL
from llama_index.core.question_gen.output_parser import SubQuestionOutputParser
from llama_index.core.question_gen.types import SubQuestionList
from llama_index.core.types import BaseOutputParser
from llama_index.core.vector_stores.types import VectorStoreQuerySpec
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from llama_index_rapid.annotations import AnnotatedText, Parts, annotated, annotation_of
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.prompt.segmentation import segment, segment_context
from rapid_integrations.structured.class_schema import class_schema
from rapid_integrations.structured.closed import closed

_BEFORE, _AFTER = (part.strip() for part in PYDANTIC_FORMAT_TMPL.split("{schema}"))


def schema_of_parser(parser: BaseOutputParser | None, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON schema that a template's parser expects; None for a parser that is unknown or expects no JSON.

    Args:
        parser: the parser of the template or of the LLM.
        values: the template's variables, which include the number of choices.
    """
    kind = type(parser)
    if isinstance(parser, PydanticOutputParser) and type(parser).parse is PydanticOutputParser.parse:
        return schema_of_class(parser.output_cls)
    if kind is SelectionOutputParser:
        return _selection(values)
    if kind is SubQuestionOutputParser:
        return schema_of_class(SubQuestionList)
    if kind is VectorStoreQueryOutputParser:
        return schema_of_class(VectorStoreQuerySpec)
    return None


def schema_of_class(output_cls: type[BaseModel]) -> dict[str, Any]:
    """Return the enforced schema of a class.

    Raises:
        ConfigurationError: the class has no JSON schema.
    """
    try:
        schema = class_schema(output_cls)
    except (PydanticUserError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{getattr(output_cls, '__name__', output_cls)} cannot be an answer's class, since it has no JSON schema: "
            f"{str(error).splitlines()[0]}. Give a pydantic model whose fields can be written as JSON"
        ) from error
    return schema


def schema_in_text(text: str) -> tuple[int, dict[str, Any]] | None:
    """Return where LlamaIndex's format instruction starts at the end of a text, and its schema; None without one."""
    body = text.rstrip()
    if not body.endswith(_AFTER):
        return None
    begin = body.rfind(_BEFORE)
    written = body[begin + len(_BEFORE) : -len(_AFTER)].strip() if begin >= 0 else ""
    for form in (written, written.replace("{{", "{").replace("}}", "}")):  # some parsers double the braces
        try:
            schema = json.loads(form)
        except ValueError:
            continue
        return (begin, closed(schema)) if isinstance(schema, dict) else None
    return None


def asked_for_json(
    prompt: str | Sequence[ChatMessage],
) -> tuple[str | Sequence[ChatMessage], dict[str, Any] | None]:
    """Return the prompt, and the schema of the JSON answer that LlamaIndex asks for in it and will parse, or None.

    If LlamaIndex's format instruction is in the text, the text is annotated, because the instruction is neither
    question nor document.
    """
    if isinstance(prompt, str):
        parts = prompt.parts if isinstance(prompt, AnnotatedText) else Parts()
        if parts.json_schema is not None or (found := schema_in_text(prompt)) is None:
            return prompt, parts.json_schema
        return AnnotatedText(prompt, parts if parts.known else parts_before_format(prompt[: found[0]])), found[1]
    messages = list(prompt)
    for index, message in enumerate(messages):
        parts = annotation_of(message)
        if parts.json_schema is not None:
            return messages, parts.json_schema
        # LlamaIndex's parsers write it only in these places. A tool's result with such an ending is not a request.
        leading = all(each.role == MessageRole.SYSTEM for each in messages[: index + 1])
        if not leading and (index < len(messages) - 1 or message.role != MessageRole.USER):
            continue
        if (found := schema_in_text(message.content or "")) is not None:
            if not any(annotation_of(each).known for each in messages):
                asked_elsewhere = any(each.role == MessageRole.USER for each in messages)
                instructing = message.role == MessageRole.SYSTEM and asked_elsewhere
                said = (message.content or "")[: found[0]]
                messages[index] = annotated(message, parts_before_format(said, instructing=instructing))
            return messages, found[1]
    return messages, None


def parts_before_format(text: str, query: str | None = None, instructing: bool = False) -> Parts:
    """Return the parts of a text before its format instruction. `instructing`: another message has the question."""
    found = segment_context(text) if instructing else segment(text)
    query = query or (None if instructing else found.query.strip() or None)
    return Parts(found.context_spans, query, known=True, segmentation=found.method)


def _selection(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a selector's answer: a list of choices (from 1), each with a reason."""
    choice: dict[str, Any] = {"type": "integer", "minimum": 1}
    if isinstance(count := values.get("num_choices"), int):
        choice["maximum"] = max(1, count)
    most = values.get("max_outputs", 1)
    answer = {
        "type": "object",
        "properties": {"choice": choice, "reason": {"type": "string"}},
        "required": ["choice", "reason"],
        "additionalProperties": False,
    }
    return {
        "title": "Selection",
        "type": "array",
        "items": answer,
        "minItems": 1,
        "maxItems": most if isinstance(most, int) and most > 0 else 1,
    }
