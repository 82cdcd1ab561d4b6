"""Joins the parts of a message's content to one content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rapid_integrations.errors import PromptError
from rapid_integrations.prompt.prompt import Prompt

BETWEEN_PARTS = "\n"  # keeps the words of separate parts apart


def join_parts(parts: Sequence[str | Prompt], between: str = BETWEEN_PARTS) -> str | Prompt:
    """Return the parts of one message as one content, joined by `between`. Blank parts are left out.

    Context spans keep their places. The last question that was given with a part becomes the content's. If no part has
    a context and one says that nothing was retrieved, the same holds for the whole content.
    """
    kept = [part for part in parts if (part if isinstance(part, str) else part.text).strip()]
    text, spans, query, has_context, segmentation = "", [], None, True, None
    for index, part in enumerate(kept):
        text += between if index else ""
        if isinstance(part, Prompt):
            spans += [(len(text) + start, len(text) + end) for start, end in part.context_spans]
            query = part.query if part.query is not None else query
            has_context = has_context and part.has_context
            segmentation = part.segmentation if part.context_spans or segmentation is None else segmentation
        text += part if isinstance(part, str) else part.text
    if segmentation is None:
        return text
    return Prompt(
        text=text,
        context_spans=tuple(spans),
        query=query,
        has_context=has_context or bool(spans),
        segmentation=segmentation,
    )


def content_of_message(message: Mapping[str, Any]) -> str | Prompt | None:
    """Return the content of an engine's message, or None if it has none that can be read.

    A list of parts, as in OpenAI's API, is joined. Parts are strings, `Prompt`s and {"type": "text", "text": ...}.

    Raises:
        PromptError: a part is not text.
    """
    content = message.get("content")
    if isinstance(content, (str, Prompt)):
        return content
    if not isinstance(content, (list, tuple)):
        return "" if content is None and message.get("tool_calls") else None  # an answer may consist only of tool calls
    parts: list[str | Prompt] = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else part
        if not isinstance(text, (str, Prompt)):
            raise PromptError(
                f"a part of a message is not text, and the target reads text only: {part!r:.200}. Leave it out, or "
                'give {"type": "text", "text": ...}'
            )
        parts.append(text)
    return join_parts(parts)
