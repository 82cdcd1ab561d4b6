"""LangChain's messages as the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, FunctionMessage, ToolMessage

from rapid_integrations.errors import PromptError

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}

# A call's own blocks repeat `tool_calls`; reasoning of earlier turns is not repeated to the model, as chat templates
# themselves have it.
_PASSED_OVER = {"tool_use", "tool_call", "function_call", "thinking", "redacted_thinking", "reasoning"}


def to_engine_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return role, content (a text) and tool calls of each message.

    Raises:
        PromptError: no message, or one that holds something other than text and tool calls.
    """
    if not messages:
        raise PromptError("there is no message to answer: give at least one, for instance HumanMessage('...')")
    return [_to_engine_message(message) for message in messages]


def _to_engine_message(message: BaseMessage) -> dict[str, Any]:
    given: dict[str, Any] = {"role": _role_of(message), "content": _text_of(message)}
    if isinstance(message, AIMessage) and message.tool_calls:
        given["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_calls
        ]
    if isinstance(message, ToolMessage):
        given["tool_call_id"] = message.tool_call_id
    if isinstance(message, (ToolMessage, FunctionMessage)) and message.name:
        given["name"] = message.name
    return given


def _role_of(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    role = _ROLES.get(message.type.removesuffix("MessageChunk").lower())
    if role is None:
        raise PromptError(f"a {type(message).__name__} is nothing that a model reads: leave it out of the messages")
    return role


def _text_of(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    texts = []
    for block in message.content:
        if isinstance(block, str):
            texts.append(block)
        elif block.get("type") == "text" or (block.get("type") is None and "text" in block):
            texts.append(str(block["text"]))
        elif block.get("type") not in _PASSED_OVER:
            raise PromptError(
                f"a message holds a block of type {block.get('type')!r}, but the target reads text only: pass "
                '{"type": "text", "text": ...}'
            )
    return "".join(texts)
