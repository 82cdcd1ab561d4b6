"""The engine's answers as LangChain's: everything in them is JSON, as checkpoints, caches and tracers want it."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk

from rapid_integrations import Completion, CompletionChunk, RetrievedChunk

PROVIDER = "rapid"  # in tracing (`ls_provider`) and in messages (`model_provider`): LangChain compares the two

# What the ecosystem calls the ends of an answer (OpenAI's words): judges and middlewares look for "stop".
_FINISH_REASONS = {"eos": "stop"}
# LangChain's chunks complete JSON that was cut and make a valid call of half of its arguments. With a byte order mark
# before them they stay what they are: no JSON.
_NOT_JSON = "\ufeff"


@dataclass(frozen=True)
class Responses:
    """Translates the pieces of one answer, or the whole of it.

    Attributes:
        retrieved: the chunks that the drafter read; their places and scores go into the metadata.
        with_texts: whether their texts do, too. They stand in the prompt already, and in a checkpoint of a
            conversation each message would hold them again.
    """

    retrieved: tuple[RetrievedChunk, ...] = ()
    with_texts: bool = False

    # --- a plain LLM's ----------------------------------------------------------------------------------------------

    def generation(self, completion: Completion) -> Generation:
        """Return a whole answer of a plain LLM."""
        return Generation(text=completion.text, generation_info=self._info(completion))

    def generation_chunk(self, chunk: CompletionChunk) -> GenerationChunk:
        """Return a piece of a plain LLM's answer; the last one carries usage and statistics."""
        info = None if chunk.finish_reason is None else self._info(chunk)
        return GenerationChunk(text=chunk.text, generation_info=info)

    # --- a chat model's ---------------------------------------------------------------------------------------------

    def chat_generation(self, completion: Completion) -> ChatGeneration:
        """Return a whole answer of a chat model."""
        message = AIMessage(
            content=completion.text,
            tool_calls=[tool_call(name=call.name, args=call.arguments, id=call.id) for call in completion.tool_calls],
            invalid_tool_calls=[
                invalid_tool_call(name=call.name, args=call.arguments, id=_new_id(), error=call.error)
                for call in completion.invalid_tool_calls
            ],
            usage_metadata=_usage(completion),
        )
        return ChatGeneration(message=message, generation_info=self._info(completion))

    def chat_chunk(self, chunk: CompletionChunk) -> ChatGenerationChunk:
        """Return a piece of a chat model's answer; the last one carries calls, usage and statistics."""
        if chunk.finish_reason is None:
            return ChatGenerationChunk(message=AIMessageChunk(content=chunk.text))
        message = AIMessageChunk(
            content=chunk.text,
            tool_call_chunks=_call_chunks(chunk),
            usage_metadata=_usage(chunk),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message, generation_info=self._info(chunk))

    def _info(self, answer: Completion | CompletionChunk) -> dict[str, Any]:
        """Return what becomes `generation_info` and `response_metadata`; everything of RAPID's own is under "rapid"."""
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
    """Return the token counts under OpenAI's names, where token counters and judges look for them."""
    assert answer.usage is not None
    return {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }


def llm_output(completions: Sequence[Completion]) -> dict[str, Any]:
    """Return the sums of a call over several prompts, as LangChain's `LLMResult.llm_output` holds them."""
    return combined_outputs(
        [{"token_usage": token_usage(completion), "model_name": completion.stats.target} for completion in completions]
    )


def combined_outputs(outputs: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Return the sum of several `llm_output`; an answer that a cache gave has None."""
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
    """Return `value` with None for numbers that JSON has no form for: a retriever's score may be NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
