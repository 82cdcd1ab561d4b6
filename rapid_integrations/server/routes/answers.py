"""/v1/chat/completions and /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from rapid_integrations.config import SamplingParams
from rapid_integrations.server.answering import Answering
from rapid_integrations.server.body import parsed
from rapid_integrations.server.chat_format import ChatFormat
from rapid_integrations.server.choices import Ask, Choices
from rapid_integrations.server.completion_format import CompletionFormat
from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.parameters import sampling_of, speculation_of, template_of, tools_of
from rapid_integrations.server.prompts import ServedPrompt, chat_prompt, text_prompt
from rapid_integrations.server.requests import ChatRequest, CompletionRequest
from rapid_integrations.server.state import ServerState


def routes(state: ServerState) -> list[Route]:
    """Return the routes of the endpoints that answer."""

    async def chat(request: Request) -> Any:
        body = await parsed(request, ChatRequest)
        state.require_model(body.model)
        sampling = sampling_of(body, state.engine)
        options = {**_options(body, state), **tools_of(body)}

        async def asks() -> Sequence[Ask]:
            prompt = await chat_prompt(body, state.reading)
            return _asks(body, [prompt], sampling, options)

        return Answering(state, asks, lambda choices: ChatFormat(state, body, choices), bool(body.stream))

    async def complete(request: Request) -> Any:
        body = await parsed(request, CompletionRequest)
        state.require_model(body.model)
        sampling = sampling_of(body, state.engine)
        options = {**_options(body, state), "apply_chat_template": False}
        texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt

        async def asks() -> Sequence[Ask]:
            prompts = [await text_prompt(text, body.options, state.reading) for text in texts]
            return _asks(body, prompts, sampling, options)

        def written(choices: Choices) -> CompletionFormat:
            echoed = [text if body.echo else "" for text in texts for _ in range(body.n or 1)]
            return CompletionFormat(state, body, choices, echoed)

        return Answering(state, asks, written, bool(body.stream))

    return [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", complete, methods=["POST"]),
    ]


def _options(body: ChatRequest | CompletionRequest, state: ServerState) -> dict[str, Any]:
    """Return the arguments of `RapidEngine.stream` that both endpoints share."""
    options: dict[str, Any] = {"speculation": speculation_of(body, state.engine), **template_of(body, state.engine)}
    wanted = bool(body.logprobs) if isinstance(body, ChatRequest) else body.logprobs is not None
    if isinstance(body, ChatRequest) and body.top_logprobs and not wanted:
        raise ApiError(
            400, "top_logprobs needs logprobs: set logprobs to true, too", "invalid_value", param="top_logprobs"
        )
    if isinstance(body, CompletionRequest) and wanted and body.echo:
        raise ApiError(
            400,
            "echo and logprobs in one request: the server has log-probabilities of the answer and none of the prompt's "
            "tokens. Leave one of the two out",
            "invalid_value",
            param="logprobs",
        )
    if wanted or body.options.trace:
        options["trace"] = True
        options["trace_candidates"] = (body.top_logprobs if isinstance(body, ChatRequest) else body.logprobs) or 1
    return options


def _asks(
    body: ChatRequest | CompletionRequest,
    prompts: Sequence[ServedPrompt],
    sampling: SamplingParams,
    options: dict[str, Any],
) -> list[Ask]:
    """Return one ask for each answer. With a seed, each answer to a prompt has a seed of its own."""
    given = body.max_tokens is not None or getattr(body, "max_completion_tokens", None) is not None
    asks = []
    for prompt in prompts:
        for number in range(body.n or 1):
            seed = None if sampling.seed is None else (sampling.seed + number) % 2**63
            settings = sampling.model_copy(update={"seed": seed})
            asks.append(Ask(prompt, settings, options, fitted=not given, provisional=_guessed(body)))
    return asks


def _guessed(body: ChatRequest | CompletionRequest) -> bool:
    """Whether the drafter's own answer is wanted and can be shown: as a stream of plain text."""
    plain = not isinstance(body, ChatRequest) or (not body.tools and body.response_format is None)
    return body.options.provisional and bool(body.stream) and plain
