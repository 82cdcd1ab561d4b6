"""Translation of the engine's answers to LlamaIndex's."""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.base.llms.types import ContentBlock, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse, MessageRole

from rapid_integrations import Completion, CompletionChunk, IncompleteOutputError, RetrievedChunk, ToolCall
from rapid_integrations.adapters.thinking import Marks, Thinking

# OpenAI's name for an end token is "stop", which tools around LlamaIndex expect.
_FINISH_REASONS = {"eos": "stop", "abstained": "stop"}


class Answer:
    """Collects the chunks of an answer and makes LlamaIndex's cumulative responses of them.

    Args:
        model: the target's name.
        retrieved: the chunks that the drafter read.
        wanted: what the answer must be, if a partial answer is useless: the name of the class that LlamaIndex will
            parse it into, or a required call. None for text.
        marks: how the model's thinking begins and ends, if it is to be told apart from the answer.
    """

    def __init__(
        self,
        model: str,
        retrieved: tuple[RetrievedChunk, ...] = (),
        wanted: str | None = None,
        marks: Marks | None = None,
    ) -> None:
        self._model = model
        self._retrieved = retrieved
        self._wanted = wanted
        self._text = self._thoughts = ""
        self._thinking = Thinking(marks)
        self._last: CompletionChunk | None = None

    def add(self, chunk: CompletionChunk) -> str:
        """Take the next chunk and return its text, without thinking.

        Raises:
            IncompleteOutputError: LlamaIndex will parse the answer, but it ended before it was complete.
        """
        thinking, chunk = self._thinking.part(chunk)
        self._thoughts += thinking
        self._text += chunk.text
        self._last = chunk
        cut = chunk.finish_reason not in (None, "eos", "tool_calls") and not chunk.tool_calls
        if self._wanted and cut and not _is_json(self._text):
            raise IncompleteOutputError(
                f"{self._wanted} could not be made of the answer {self._text!r:.200}: it was cut off. Raise "
                "max_new_tokens, or drop the stop strings"
            )
        return chunk.text

    def completion(self, delta: str | None = None) -> CompletionResponse:
        """Return the answer so far. `delta` is its latest piece."""
        return CompletionResponse(text=self._text, delta=delta, raw=self._raw(), additional_kwargs=self._counts())

    def chat(self, delta: str | None = None) -> ChatResponse:
        """Return the answer so far as a message. `delta` is its latest piece."""
        calls = () if self._last is None else self._last.tool_calls
        blocks: list[ContentBlock] = [ThinkingBlock(content=self._thoughts)] if self._thoughts else []
        blocks += [TextBlock(text=self._text)] if self._text or not calls else []
        blocks += [ToolCallBlock(tool_call_id=c.id, tool_name=c.name, tool_kwargs=c.arguments) for c in calls]
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
        if calls:  # LlamaIndex's own programs and tracers read them there
            message.additional_kwargs["tool_calls"] = [_as_openai(call) for call in calls]
        if self._last is not None and (invalid := self._last.invalid_tool_calls):
            message.additional_kwargs["invalid_tool_calls"] = [
                {"name": call.name, "arguments": call.arguments, "error": call.error} for call in invalid
            ]
        return ChatResponse(message=message, delta=delta, raw=self._raw(), additional_kwargs=self._counts())

    def _counts(self) -> dict[str, Any]:
        """Return the token counts for token counters that do not read `raw`."""
        usage = None if self._last is None else self._last.usage
        if usage is None:
            return {}
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }

    def _raw(self) -> dict[str, Any]:
        """Return the usage and the decoding statistics of a finished answer.

        `finish_reason` is OpenAI's name. The engine's own is among the statistics.
        """
        last = self._last
        if last is None or last.usage is None or last.stats is None or last.finish_reason is None:
            return {"model": self._model}
        return {
            "model": self._model,
            "finish_reason": _FINISH_REASONS.get(last.finish_reason, last.finish_reason),
            "usage": {**last.usage.model_dump(), "total_tokens": last.usage.total_tokens},
            "stats": {
                **last.stats.model_dump(),
                "acceptance_rate": last.stats.acceptance_rate,
                "tokens_per_round": last.stats.tokens_per_round,
                "decode_tps": last.stats.decode_tps,
                "finish_reason": last.finish_reason,
            },
            "retrieved": [chunk.model_dump() for chunk in self._retrieved],
            "sources": [source.model_dump() for source in last.sources],
        }


def whole(completion: Completion, model: str, wanted: str | None = None, marks: Marks | None = None) -> Answer:
    """Return a finished answer as an `Answer`."""
    answer = Answer(model, completion.retrieved, wanted, marks)
    fields = {name: getattr(completion, name) for name in CompletionChunk.model_fields}
    answer.add(CompletionChunk(**fields))
    return answer


def _as_openai(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
