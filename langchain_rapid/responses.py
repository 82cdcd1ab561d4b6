"""The engine's answers as LangChain's."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk

from rapid_integrations import Completion, CompletionChunk, RetrievedChunk

Retrieved = tuple[RetrievedChunk, ...]


def generation(completion: Completion) -> Generation:
    """Return a whole answer of a plain LLM."""
    return Generation(text=completion.text, generation_info=_info(completion, completion.retrieved, with_usage=True))


def generation_chunk(chunk: CompletionChunk, retrieved: Retrieved) -> GenerationChunk:
    """Return a piece of a plain LLM's answer; the last one carries usage and statistics."""
    info = None if chunk.finish_reason is None else _info(chunk, retrieved, with_usage=True)
    return GenerationChunk(text=chunk.text, generation_info=info)


def chat_generation(completion: Completion) -> ChatGeneration:
    """Return a whole answer of a chat model."""
    message = AIMessage(
        content=completion.text,
        tool_calls=[tool_call(name=call.name, args=call.arguments, id=call.id) for call in completion.tool_calls],
        usage_metadata=_usage(completion),
    )
    return ChatGeneration(message=message, generation_info=_info(completion, completion.retrieved))


def chat_chunk(chunk: CompletionChunk, retrieved: Retrieved) -> ChatGenerationChunk:
    """Return a piece of a chat model's answer; the last one carries calls, usage and statistics."""
    if chunk.finish_reason is None:
        return ChatGenerationChunk(message=AIMessageChunk(content=chunk.text))
    message = AIMessageChunk(
        content=chunk.text,
        tool_call_chunks=[
            tool_call_chunk(name=call.name, args=json.dumps(call.arguments, ensure_ascii=False), id=call.id, index=i)
            for i, call in enumerate(chunk.tool_calls)
        ],
        usage_metadata=_usage(chunk),
        chunk_position="last",
    )
    return ChatGenerationChunk(message=message, generation_info=_info(chunk, retrieved))


def token_usage(answer: Completion | CompletionChunk) -> dict[str, int]:
    """Return the token counts under OpenAI's names, where token counters of plain LLMs look for them."""
    assert answer.usage is not None
    return {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }


def _usage(answer: Completion | CompletionChunk) -> UsageMetadata:
    assert answer.usage is not None and answer.stats is not None
    return UsageMetadata(
        input_tokens=answer.usage.prompt_tokens,
        output_tokens=answer.usage.completion_tokens,
        total_tokens=answer.usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=answer.stats.cached_prompt_tokens),
    )


def _info(answer: Completion | CompletionChunk, retrieved: Retrieved, with_usage: bool = False) -> dict[str, Any]:
    """Return what becomes `generation_info` and `response_metadata`; everything of RAPID's own is under "rapid"."""
    assert answer.usage is not None and answer.stats is not None
    stats = answer.stats
    return {
        "model_name": stats.target,
        "finish_reason": answer.finish_reason,
        **({"token_usage": token_usage(answer)} if with_usage else {}),
        "rapid": {
            **stats.model_dump(),
            "acceptance_rate": stats.acceptance_rate,
            "tokens_per_round": stats.tokens_per_round,
            "decode_tps": stats.decode_tps,
            "drafter_prompt_tokens": answer.usage.drafter_prompt_tokens,
            "retrieved": [chunk.model_dump() for chunk in retrieved],
        },
    }
