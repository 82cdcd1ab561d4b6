"""The engine's settings for a request, from the fields of its body."""

from __future__ import annotations

from typing import Any

from rapid_integrations.config import SamplingParams, SpeculationConfig, StructuredOutput
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.prompt import TemplateArguments
from rapid_integrations.server.failures import ApiError, api_error
from rapid_integrations.server.requests import ChatRequest, CompletionRequest, ToolChoice

_EFFORT = "reasoning_effort"
_SMALLEST_TOP_P = 1e-6  # OpenAI allows 0, which leaves the most probable token


def sampling_of(body: ChatRequest | CompletionRequest, engine: RapidEngine) -> SamplingParams:
    """Return the sampling settings. What the body leaves out is the engine's default.

    Raises:
        ApiError: a field cannot be used.
        ConfigurationError: see `SamplingParams`.
    """
    most = body.max_tokens
    if isinstance(body, ChatRequest) and body.max_completion_tokens is not None:
        most = body.max_completion_tokens
    top_k = None if body.top_k is None else max(body.top_k, 0)  # vLLM's -1 keeps all, too
    given: dict[str, Any] = {
        "temperature": body.temperature,
        "top_p": None if body.top_p is None else max(body.top_p, _SMALLEST_TOP_P),
        "top_k": top_k,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logit_bias": None if body.logit_bias is None else _bias(body.logit_bias),
        "max_new_tokens": most,
        "min_new_tokens": (most or engine.sampling.max_new_tokens) if body.ignore_eos else body.min_tokens,
        "stop": None if body.stop is None else tuple([body.stop] if isinstance(body.stop, str) else body.stop),
        "seed": None if body.seed is None else body.seed % 2**63,
        "structured": _structured(body) if isinstance(body, ChatRequest) else None,
    }
    given |= body.options.model_dump(include={"abstain_below", "abstain_text"})
    chosen = {name: value for name, value in given.items() if value is not None}
    return SamplingParams(**{**_fields(engine.sampling), **chosen})


def speculation_of(body: ChatRequest | CompletionRequest, engine: RapidEngine) -> SpeculationConfig:
    """Return the law and the proposer. What the body leaves out is the engine's default.

    Raises:
        ConfigurationError: see `SpeculationConfig`.
    """
    given = body.options.model_dump(include={"law", "eta", "proposer", "draft_length"}, exclude_none=True)
    return SpeculationConfig(**{**_fields(engine.speculation), **given})


def tools_of(body: ChatRequest) -> dict[str, Any]:
    """Return the arguments of `RapidEngine.stream` about tools."""
    if not body.tools:
        if body.tool_choice not in (None, "none", "auto"):
            raise ApiError(400, "tool_choice needs tools: declare them, or leave it out", param="tool_choice")
        return {}
    choice = body.tool_choice.function.name if isinstance(body.tool_choice, ToolChoice) else body.tool_choice
    return {
        "tools": [tool.model_dump(exclude_none=True) for tool in body.tools],
        "tool_choice": choice or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
    }


def template_of(body: ChatRequest | CompletionRequest, engine: RapidEngine) -> dict[str, Any]:
    """Return the arguments of `RapidEngine.stream` about the chat template.

    Raises:
        ApiError: the template does not read an argument, or the body names arguments in two places.
    """
    given = body.options.chat_template_kwargs
    if isinstance(body, ChatRequest):
        if given and body.chat_template_kwargs:
            raise ApiError(
                400,
                "chat_template_kwargs stands in the body and in rapid: give it in one of the two places",
                "invalid_value",
                param="rapid.chat_template_kwargs",
            )
        given = given or body.chat_template_kwargs
        if body.reasoning_effort is not None:
            given = _with_effort(body.reasoning_effort, given or {}, engine)
    if not given:
        return {}
    try:
        arguments = TemplateArguments(given)
        engine.vocabulary.require_arguments(arguments)  # before the documents of the request are read
    except ConfigurationError as error:
        failure = api_error(error)
        failure.param = "chat_template_kwargs"
        raise failure from None
    return {"chat_template_kwargs": arguments}


def _with_effort(effort: str, given: dict[str, Any], engine: RapidEngine) -> dict[str, Any]:
    """Return the arguments with OpenAI's `reasoning_effort` among them."""
    if _EFFORT not in (engine.vocabulary.template_names or ()):
        raise ApiError(
            400,
            f"Unrecognized request argument supplied: {_EFFORT}. The model's chat template reads no such name",
            "unknown_parameter",
            param=_EFFORT,
        )
    if given.get(_EFFORT, effort) != effort:
        raise ApiError(
            400,
            f"{_EFFORT} is {effort!r} and {given[_EFFORT]!r} in chat_template_kwargs: give it once",
            "invalid_value",
            param=_EFFORT,
        )
    return {**given, _EFFORT: effort}


def _bias(given: dict[str, float]) -> dict[int, float]:
    """Return the bias by token id. JSON has no numbers as names."""
    for name in given:
        if not (name.isascii() and name.isdigit() and len(name) <= 9):
            raise ApiError(
                400,
                f'logit_bias names the token {name[:40]!r}: give token ids, such as "42"',
                "invalid_value",
                param="logit_bias",
            )
    return {int(name): value for name, value in given.items()}


def _structured(body: ChatRequest) -> StructuredOutput | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return StructuredOutput(json_schema=wanted.schema_ or {"type": "object"})
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        raise ApiError(
            400,
            'response_format of type "json_schema" needs json_schema.schema: give the schema, or use "json_object"',
            "missing_required_parameter",
            param="response_format.json_schema",
        )
    return StructuredOutput(json_schema=wanted.json_schema.schema_)


def _fields(settings: SamplingParams | SpeculationConfig) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in type(settings).model_fields}
