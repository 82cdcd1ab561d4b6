"""Translation of LlamaIndex's chat messages to the engine's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    CitableBlock,
    CitationBlock,
    ContentBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms import ChatMessage, MessageRole

from llama_index_rapid.annotations import content_of
from rapid_integrations.errors import PromptError

_ROLES = {
    MessageRole.MODEL: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.DEVELOPER: "system",
    MessageRole.FUNCTION: "tool",
}
# Reasoning is given to the chat template apart from the text. A citation refers to the source of an answer and is not
# part of it. A cache point only concerns a provider's billing.
_SAY_NOTHING = (ToolCallBlock, ThinkingBlock, CitationBlock, CachePoint)


def to_engine_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return role, content and tool calls of each message.

    Raises:
        PromptError: a message contains something other than text and tool calls.
    """
    return [_to_engine_message(message) for message in messages]


def with_text_only(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the messages with all their content in blocks of text. Functions that print messages read only those.

    Raises:
        PromptError: a message contains something that cannot be read as text.
    """
    return [_with_text_only(message) for message in messages]


def _with_text_only(message: ChatMessage) -> ChatMessage:
    texts = list(_texts(message.blocks))
    if not any(isinstance(block, CitableBlock) for block in message.blocks):
        return message
    kept: list[ContentBlock] = [block for block in message.blocks if isinstance(block, (ToolCallBlock, ThinkingBlock))]
    return message.model_copy(update={"blocks": [*(TextBlock(text=text) for text in texts), *kept]})


def _texts(blocks: Sequence[Any]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, TextBlock):
            yield block.text
        elif isinstance(block, CitableBlock):
            yield "\n".join([block.title, *_texts(block.content)])
        elif not isinstance(block, _SAY_NOTHING):
            raise PromptError(
                f"a message holds a part of the kind {type(block).__name__}, but the target reads text only: pass its "
                "content as a TextBlock, or leave it out"
            )


def _to_engine_message(message: ChatMessage) -> dict[str, Any]:
    message = _with_text_only(message)
    given: dict[str, Any] = {"role": _ROLES.get(message.role, message.role.value), "content": content_of(message)}
    if calls := _calls(message):
        given["tool_calls"] = calls
    if given["role"] == "assistant" and (reasoning := _reasoning(message)):
        given["reasoning_content"] = reasoning
    if given["role"] == "tool":
        given |= {
            key: message.additional_kwargs[key] for key in ("tool_call_id", "name") if key in message.additional_kwargs
        }
    return given


def _reasoning(message: ChatMessage) -> str:
    """Return an answer's thinking from its blocks, or else from the `additional_kwargs` of other integrations."""
    thoughts = "\n".join(
        block.content for block in message.blocks if isinstance(block, ThinkingBlock) and block.content
    )
    kept = message.additional_kwargs.get("reasoning_content")
    return thoughts or (kept if isinstance(kept, str) else "")


def _calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Return a message's tool calls from its blocks, or else from the `additional_kwargs` of older messages."""
    found = [
        (block.tool_call_id, block.tool_name, block.tool_kwargs)
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ] or [_kept_beside(call) for call in message.additional_kwargs.get("tool_calls") or ()]
    return [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": _arguments(arguments)}}
        for call_id, name, arguments in found
    ]


def _kept_beside(call: Any) -> tuple[str | None, str, Any]:
    """Return id, name and arguments of a call in OpenAI's form, which is an object or a mapping."""
    function = _get(call, "function") or call
    name = _get(function, "name")
    if not isinstance(name, str) or not name:
        raise PromptError(
            'a message\'s additional_kwargs["tool_calls"] holds a call without a name: give {"id": ..., "type": '
            f'"function", "function": {{"name": ..., "arguments": ...}}}}; given: {call!r:.200}'
        )
    return _get(call, "id"), name, _get(function, "arguments") or {}


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, Mapping) else getattr(holder, key, None)


def _arguments(arguments: Any) -> Any:
    """Return the arguments as an object, because chat templates print objects."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
