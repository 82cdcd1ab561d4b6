"""Translation of LangChain's messages to the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, FunctionMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValue, PromptValue

from rapid_integrations.errors import PromptError

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}

# Blocks of calls repeat `tool_calls`. Reasoning is given to the chat template apart from the text.
_PASSED_OVER = {
    *("tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call"),
    *("server_tool_call", "server_tool_call_chunk", "server_tool_result"),
    *("thinking", "redacted_thinking", "reasoning"),
}
_TEXTS = {"text", "text-plain", "input_text", "output_text"}


def to_engine_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return role, content (a text) and tool calls of each message.

    Raises:
        PromptError: there is no message, or one contains something other than text and tool calls.
    """
    if not messages:
        raise PromptError("there is no message to answer: give at least one, for instance HumanMessage('...')")
    return [_to_engine_message(message) for message in messages]


def _to_engine_message(message: BaseMessage) -> dict[str, Any]:
    given: dict[str, Any] = {"role": _role_of(message), "content": text_of(message)}
    if isinstance(message, AIMessage) and message.tool_calls:
        given["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
            for call in message.tool_calls
        ]
    if isinstance(message, AIMessage) and (reasoning := _reasoning_of(message)):
        given["reasoning_content"] = reasoning
    if isinstance(message, ToolMessage):
        given["tool_call_id"] = message.tool_call_id
    if isinstance(message, (ToolMessage, FunctionMessage)) and message.name:
        given["name"] = message.name
    return given


def _reasoning_of(message: AIMessage) -> str:
    """Return an answer's thinking from `additional_kwargs`, where this package keeps it, or else from its blocks."""
    kept = message.additional_kwargs.get("reasoning_content")
    if isinstance(kept, str) and kept.strip():
        return kept
    blocks = [block for block in message.content if isinstance(block, dict)] if message.content else []
    thoughts = (block.get(str(block.get("type"))) for block in blocks if block.get("type") in ("thinking", "reasoning"))
    return "".join(thought for thought in thoughts if isinstance(thought, str))


def _role_of(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    role = _ROLES.get(message.type.removesuffix("MessageChunk").lower())
    if role is None:
        raise PromptError(f"a model cannot read a {type(message).__name__}: leave it out of the messages")
    return role


def text_of(message: BaseMessage) -> str:
    """Return a message's text with its parts separated.

    Parts are independent pieces, such as a document and a question. An empty line separates two that would otherwise
    touch, so that their words do not run together. The parts of a model's own answer are streamed pieces, so they are
    joined without a separator.

    Raises:
        PromptError: a part is not text.
    """
    if isinstance(message.content, str):
        return message.content
    texts = [text for block in message.content if (text := _text_of_block(block))]
    if isinstance(message, AIMessage):
        return "".join(texts)
    joined = ""
    for text in texts:
        touching = joined and not (joined[-1].isspace() or text[0].isspace())
        joined += ("\n\n" if touching else "") + text
    return joined


class TextOfMessages(str):
    """Messages as LangChain writes them for a plain LLM ("System: ...", "Human: ..."), and what they were.

    In every other respect it is a `str`. Callbacks and caches see no difference.
    """

    messages: Sequence[BaseMessage]

    def __new__(cls, text: str, messages: Sequence[BaseMessage]) -> TextOfMessages:
        """Return `text` with its messages, each of which has one text as its content."""
        made = super().__new__(cls, text)
        made.messages = messages
        return made

    @property
    def starts(self) -> list[int] | None:
        """Where each message's content starts, in characters; None if LangChain wrote one of them otherwise."""
        found, position = [], 0
        for message in self.messages:
            start = self.find(str(message.content), position)
            if start < 0:
                return None
            found.append(start)
            position = start + len(message.content)
        return found


class _TextPrompt(ChatPromptValue):
    def to_string(self) -> str:
        return TextOfMessages(super().to_string(), self.messages)


def with_texts(prompt: PromptValue) -> PromptValue:
    """Return a prompt whose messages have one text each, and which as one text still tells what they were.

    LangChain itself leaves out all parts of a message but "text", and puts no separator between those.

    Raises:
        PromptError: a part is not text.
    """
    if not isinstance(prompt, ChatPromptValue):
        return prompt
    messages = [
        each if isinstance(each.content, str) else each.model_copy(update={"content": text_of(each)})
        for each in prompt.messages
    ]
    return _TextPrompt(messages=messages)


def _text_of_block(block: str | dict[str, Any]) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind in _TEXTS or (kind is None and "text" in block):
        return str(block.get("text") or "")
    if kind in _PASSED_OVER:
        return ""
    raise PromptError(
        f"a message holds a block of type {kind!r}, but the target reads text only: leave it out, or describe it with "
        '{"type": "text", "text": ...}'
    )
