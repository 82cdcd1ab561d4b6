"""Translation of the engine's answers to LangChain's. All metadata is JSON, which checkpoints and tracers need."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk

from rapid_integrations import Completion, CompletionChunk, RetrievedChunk
from rapid_integrations.adapters.thinking import Thinking

PROVIDER = "rapid"  # in tracing (`ls_provider`) and in messages (`model_provider`): LangChain compares the two

# OpenAI's names for finish reasons. Judges and middleware look for "stop".
_FINISH_REASONS = {"eos": "stop", "abstained": "stop"}
# LangChain completes JSON that was cut and would turn half of the arguments into a valid call. A byte order mark before
# them keeps them invalid.
_NOT_JSON = "\ufeff"


@dataclass(frozen=True)
class Responses:
    """Translates one answer, whole or in pieces.

    Attributes:
        retrieved: the chunks that the drafter read. Their positions and scores go into the metadata.
        with_texts: whether their texts go there, too. By default they do not: the prompt already contains them, and in
            a checkpoint of a conversation each message would repeat them.
        thinking: tells a chat model's thinking apart from its answer.
    """

    retrieved: tuple[RetrievedChunk, ...] = ()
    with_texts: bool = False
    thinking: Thinking = field(default_factory=lambda: Thinking(None))

    # --- plain LLM --------------------------------------------------------------------------------------------------

    def generation(self, completion: Completion) -> Generation:
        """Return a whole answer of a plain LLM."""
        return Generation(text=completion.text, generation_info=self._info(completion))

    def generation_chunk(self, chunk: CompletionChunk) -> GenerationChunk:
        """Return a piece of a plain LLM's answer. The last one carries usage and statistics."""
        info = None if chunk.finish_reason is None else self._info(chunk)
        return GenerationChunk(text=chunk.text, generation_info=info)

    # --- chat model -------------------------------------------------------------------------------------------------

    def chat_generation(self, completion: Completion) -> ChatGeneration:
        """Return a whole answer of a chat model."""
        thinking, completion = self.thinking.part(completion)
        message = AIMessage(
            content=completion.text,
            additional_kwargs=_reasoning(thinking),
            tool_calls=[tool_call(name=call.name, args=call.arguments, id=call.id) for call in completion.tool_calls],
            invalid_tool_calls=[
                invalid_tool_call(name=call.name, args=call.arguments, id=_new_id(), error=call.error)
                for call in completion.invalid_tool_calls
            ],
            usage_metadata=_usage(completion),
        )
        return ChatGeneration(message=message, generation_info=self._info(completion))

    def chat_chunk(self, chunk: CompletionChunk) -> ChatGenerationChunk:
        """Return a piece of a chat model's answer. The last one carries calls, usage and statistics."""
        thinking, chunk = self.thinking.part(chunk)
        more = _reasoning(thinking)
        if chunk.finish_reason is None:
            return ChatGenerationChunk(message=AIMessageChunk(content=chunk.text, additional_kwargs=more))
        message = AIMessageChunk(
            content=chunk.text,
            additional_kwargs=more,
            tool_call_chunks=_call_chunks(chunk),
            usage_metadata=_usage(chunk),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message, generation_info=self._info(chunk))

    def _info(self, answer: Completion | CompletionChunk) -> dict[str, Any]:
        """Return `generation_info` and `response_metadata`. The key "rapid" has everything that only RAPID knows."""
        assert answer.usage is not None and answer.stats is not None and answer.finish_reason is not None
        stats = answer.stats
        left_out = set() if self.with_texts else {"text"}
        rapid = {
            **stats.model_dump(),
            "finish_reason": answer.finish_reason,
            "acceptance_rate": stats.acceptance_rate,
            "tokens_per_round": stats.tokens_per_round,
            "decode_tps": stats.decode_tps,
            "drafter_prompt_tokens": answer.usage.drafter_prompt_tokens,
            "retrieved": [chunk.model_dump(exclude=left_out) for chunk in self.retrieved],
            "sources": [source.model_dump(exclude=left_out) for source in answer.sources],
        }
        if invalid := answer.invalid_tool_calls:
            rapid["invalid_tool_calls"] = [{"name": call.name, "error": call.error} for call in invalid]
        return {
            "model_name": stats.target,
            "model_provider": PROVIDER,
            "finish_reason": _FINISH_REASONS.get(answer.finish_reason, answer.finish_reason),
            "token_usage": token_usage(answer),
            "rapid": _finite(rapid),
        }


def token_usage(answer: Completion | CompletionChunk) -> dict[str, int]:
    """Return the token counts under OpenAI's names, which token counters and judges expect."""
    assert answer.usage is not None
    return {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }


def llm_output(completions: Sequence[Completion]) -> dict[str, Any]:
    """Return the token sums of a call with several prompts, for LangChain's `LLMResult.llm_output`."""
    return combined_outputs(
        [{"token_usage": token_usage(completion), "model_name": completion.stats.target} for completion in completions]
    )


def combined_outputs(outputs: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Return the sum of several `llm_output`. An answer from LangChain's cache has None."""
    usage: dict[str, int] = {}
    name = None
    for output in outputs:
        for key, count in (output or {}).get("token_usage", {}).items():
            usage[key] = usage.get(key, 0) + count
        name = (output or {}).get("model_name", name)
    return {"token_usage": usage, "model_name": name} if usage else {}


def _call_chunks(chunk: CompletionChunk) -> list[ToolCallChunk]:
    written: list[tuple[str | None, str, str]] = [
        (call.name, json.dumps(call.arguments, ensure_ascii=False), call.id) for call in chunk.tool_calls
    ]
    written += [(call.name, _NOT_JSON + call.arguments, _new_id()) for call in chunk.invalid_tool_calls]
    return [tool_call_chunk(name=name, args=args, id=id_, index=i) for i, (name, args, id_) in enumerate(written)]


def _reasoning(thinking: str) -> dict[str, Any]:
    """Return a message's `additional_kwargs`, under the name that LangChain's own models use."""
    return {"reasoning_content": thinking} if thinking else {}


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def _usage(answer: Completion | CompletionChunk) -> UsageMetadata:
    assert answer.usage is not None and answer.stats is not None
    return UsageMetadata(
        input_tokens=answer.usage.prompt_tokens,
        output_tokens=answer.usage.completion_tokens,
        total_tokens=answer.usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=answer.stats.cached_prompt_tokens),
    )


def _finite(value: Any) -> Any:
    """Return `value` with None for numbers that JSON cannot represent. A retriever's score may be NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
