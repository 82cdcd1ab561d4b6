"""A request, as the caller gave it (`Asked`) and ready to run (`Request`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from rapid_integrations.cache.kv_cache import allocated_tokens
from rapid_integrations.cache.prefix_cache import Role
from rapid_integrations.compression import ContextCompressor
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.decoding.chunk_view import Chosen
from rapid_integrations.decoding.elsewhere import ModelElsewhere
from rapid_integrations.decoding.moved_rows import Run
from rapid_integrations.decoding.proposal import MOST_TOKENS
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.engine.loaded_models import EngineModels
from rapid_integrations.engine.plan import Plan
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.errors import ConfigurationError, HostPartError, shown
from rapid_integrations.models.causal_lm import CausalLM, cache_bytes
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.prompt import NO_ARGUMENTS, PromptLike, TemplateArguments
from rapid_integrations.structured.held import Held
from rapid_integrations.tool_calls import ToolRequest

if TYPE_CHECKING:
    from rapid_integrations.trace.tracer import Tracer

_SETTINGS = {"sampling": SamplingParams, "speculation": SpeculationConfig, "compression": CompressionConfig}
ToolDeclarations: TypeAlias = Sequence[Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The arguments of `RapidEngine.stream`, with the engine's defaults filled in.

    Raises:
        ConfigurationError: settings are of another class than they should be, such as a dict, `report` is no function,
            or `compressor` has no `compress`.
    """

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
    chat_template_kwargs: TemplateArguments = NO_ARGUMENTS

    def __post_init__(self) -> None:
        """Refuse arguments of another kind: what they lack would be missed far from here."""
        for name, settings in _SETTINGS.items():
            if not isinstance(given := getattr(self, name), settings):
                raise ConfigurationError(
                    f"{name}={given!r:.100} is a {type(given).__name__}, and {name} takes a {settings.__name__}: give "
                    f"{settings.__name__}(...) with these settings",
                    code="wrong_value",
                )
        if not callable(self.report):
            raise ConfigurationError(
                f"on_progress takes a function of (stage, done, total), not {shown(self.report)}: leave it out to hear "
                "of nothing",
                code="wrong_value",
            )
        if self.report is not ignore_progress:
            object.__setattr__(self, "report", _without_stops(self.report))
        if not callable(getattr(self.compressor, "compress", None)):
            raise ConfigurationError(
                f"compressor takes an object with a method compress(contexts, query, config, on_progress), not "
                f"{shown(self.compressor)}: leave it out to take the engine's",
                code="wrong_value",
            )


def _without_stops(report: OnProgress) -> OnProgress:
    """Return `report` with a `StopIteration` of its own as an error: in a stream, it would end an answer unseen."""

    def told(stage: str, done: int, total: int) -> None:
        try:
            report(stage, done, total)
        except (StopIteration, StopAsyncIteration) as error:
            raise HostPartError(
                f"on_progress raised {type(error).__name__}, which would look like the end of the answer: catch it"
            ) from error

    return told


@dataclass(frozen=True)
class Request:
    """A request that is ready to run.

    Attributes:
        asked: the caller's arguments.
        prompts: the prompts of both models.
        plan: law, proposer and draft length.
        tools: the tools that the model may call; None without tools.
        held: the constraint of the answer.
        recorder: counters and timers, already started.
        kept_tokens: control tokens that stay in the text: marks of tool calls and of thinking.
        tracer: records the source of each token; None unless the caller asked for a trace.
        runs: what the drafter's prompt takes from the target's; None if the drafter reads its whole prompt.
        chosen: the target's rows that the drafter reads in place; None if it has a cache of its own.
    """

    asked: Asked
    prompts: PreparedPrompt
    plan: Plan
    tools: ToolRequest | None
    held: Held
    recorder: Recorder
    kept_tokens: frozenset[int] = frozenset()
    tracer: Tracer | None = None
    runs: tuple[Run, ...] | None = None
    chosen: Chosen | None = None

    def readers(self, models: EngineModels) -> list[tuple[CausalLM, Role, Sequence[int], int]]:
        """Return each reader's model, role and prompt, and the tokens that its cache has to have room for.

        A drafter on another machine keeps its cache there.
        """
        new = self.asked.sampling.max_new_tokens + MOST_TOKENS
        target, drafter = self.prompts.target_ids, self.prompts.drafter_ids
        if self.chosen is not None:  # the rows of the chunks are counted with the target's
            drafter = self.chosen.token_ids[self.chosen.seen :]
        readers: list[tuple[CausalLM, Role, Sequence[int], int]] = [
            (models.target, "target", target, len(target) + new)
        ]
        if self.plan.uses_drafter and not isinstance(models.drafter, ModelElsewhere):
            for model in (models.drafter, *models.more_drafters):
                readers.append((model, "drafter", drafter, len(drafter) + new))
        if self.plan.uses_draft_lm and models.draft_lm is not None:
            readers.append((models.draft_lm, "drafter", drafter, len(drafter) + new))
        return readers

    def kv_need(self, models: EngineModels) -> tuple[int, int]:
        """Return the bytes and the tokens of all KV caches that the request needs if it shares none of them."""
        readers = self.readers(models)
        nbytes = sum(cache_bytes(model, allocated_tokens(capacity)) for model, _, _, capacity in readers)
        return nbytes, sum(capacity for *_, capacity in readers)
