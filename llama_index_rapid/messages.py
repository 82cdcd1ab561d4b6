"""LlamaIndex's chat messages as the engine's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage, MessageRole

from llama_index_rapid.annotations import content_of
from rapid_integrations.errors import PromptError

_ROLES = {
    MessageRole.MODEL: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.DEVELOPER: "system",
    MessageRole.FUNCTION: "tool",
}


def to_engine_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return role, content and tool calls of each message.

    Raises:
        PromptError: a message holds something other than text and tool calls.
    """
    return [_to_engine_message(message) for message in messages]


def _to_engine_message(message: ChatMessage) -> dict[str, Any]:
    for block in message.blocks:
        # Reasoning of earlier turns is not repeated to the model, as chat templates themselves have it.
        if not isinstance(block, (TextBlock, ToolCallBlock, ThinkingBlock)):
            raise PromptError(
                f"a message holds a {type(block).__name__}, but the target reads text only: pass it as a TextBlock"
            )
    given: dict[str, Any] = {"role": _ROLES.get(message.role, message.role.value), "content": content_of(message)}
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if calls:
        given["tool_calls"] = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {"name": call.tool_name, "arguments": _arguments(call)},
            }
            for call in calls
        ]
    if given["role"] == "tool":
        given |= {
            key: message.additional_kwargs[key] for key in ("tool_call_id", "name") if key in message.additional_kwargs
        }
    return given


def _arguments(call: ToolCallBlock) -> Any:
    """Return the arguments as an object, which is what chat templates print."""
    if not isinstance(call.tool_kwargs, str):
        return call.tool_kwargs
    try:
        return json.loads(call.tool_kwargs)
    except ValueError:
        return call.tool_kwargs
