"""A request: as it was asked, and with everything decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rapid_integrations.compression import ContextCompressor
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.engine.plan import Plan
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import PromptLike
from rapid_integrations.structured.held import Held
from rapid_integrations.tool_calls import ToolRequest
from rapid_integrations.trace.tracer import Tracer

ToolDeclarations: TypeAlias = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Asked:
    """What `RapidEngine.stream` was given, with the engine's defaults in place of what was left out."""

    prompt: PromptLike
    sampling: SamplingParams
    speculation: SpeculationConfig
    compression: CompressionConfig
    compressor: ContextCompressor
    tools: ToolDeclarations | None
    tool_choice: str
    parallel_tool_calls: bool
    apply_chat_template: bool | None
    report: OnProgress


@dataclass(frozen=True)
class Request:
    """A request that can run: nothing about it is left to decide.

    Attributes:
        asked: what it was made from.
        prompts: what both models read.
        plan: what the output follows, and how it is guessed ahead.
        tools: what the model may call; None without tools.
        held: what the answer must look like.
        recorder: counts and times; its clock runs.
        kept_tokens: control tokens that are shown to whoever reads calls out of the text.
        tracer: records where each token came from; None if nobody asked for it.
    """

    asked: Asked
    prompts: PreparedPrompt
    plan: Plan
    tools: ToolRequest | None
    held: Held
    recorder: Recorder
    kept_tokens: frozenset[int] = frozenset()
    tracer: Tracer | None = None
