"""The engine's answers as LlamaIndex's."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ContentBlock, TextBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse, MessageRole

from rapid_integrations import Completion, CompletionChunk, RetrievedChunk


class Answer:
    """A growing answer: chunks in, LlamaIndex's cumulative responses out."""

    def __init__(self, model: str, retrieved: tuple[RetrievedChunk, ...] = ()) -> None:
        self._model = model
        self._retrieved = retrieved
        self._text = ""
        self._last: CompletionChunk | None = None

    def add(self, chunk: CompletionChunk) -> str:
        """Take the next chunk and return its text."""
        self._text += chunk.text
        self._last = chunk
        return chunk.text

    def completion(self, delta: str | None = None) -> CompletionResponse:
        """Return the answer so far; `delta` is what came last."""
        return CompletionResponse(text=self._text, delta=delta, raw=self._raw())

    def chat(self, delta: str | None = None) -> ChatResponse:
        """Return the answer so far as a message; `delta` is what came last."""
        calls = () if self._last is None else self._last.tool_calls
        blocks: list[ContentBlock] = [TextBlock(text=self._text)] if self._text or not calls else []
        blocks += [ToolCallBlock(tool_call_id=c.id, tool_name=c.name, tool_kwargs=c.arguments) for c in calls]
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
        if calls:  # where LlamaIndex's own programs look for them
            message.additional_kwargs["tool_calls"] = [call.model_dump() for call in calls]
        return ChatResponse(message=message, delta=delta, raw=self._raw())

    def _raw(self) -> dict[str, Any]:
        """Return usage where token counters read it, and the decoding statistics, once the answer is whole."""
        last = self._last
        if last is None or last.usage is None or last.stats is None:
            return {"model": self._model}
        return {
            "model": self._model,
            "finish_reason": last.finish_reason,
            "usage": {**last.usage.model_dump(), "total_tokens": last.usage.total_tokens},
            "stats": {
                **last.stats.model_dump(),
                "acceptance_rate": last.stats.acceptance_rate,
                "tokens_per_round": last.stats.tokens_per_round,
                "decode_tps": last.stats.decode_tps,
            },
            "retrieved": [chunk.model_dump() for chunk in self._retrieved],
        }


def whole(completion: Completion, model: str) -> Answer:
    """Return a finished answer."""
    answer = Answer(model, completion.retrieved)
    answer.add(
        CompletionChunk(
            text=completion.text,
            token_ids=completion.token_ids,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            stats=completion.stats,
            tool_calls=completion.tool_calls,
        )
    )
    return answer
