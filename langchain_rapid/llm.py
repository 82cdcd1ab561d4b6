"""`RapidLLM`: LangChain's plain LLM, text in and text out, over a RAPID engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, Field

from langchain_rapid.annotations import Parts, annotated_text
from langchain_rapid.rapid_model import RapidModel, Request
from langchain_rapid.responses import generation, generation_chunk, token_usage
from langchain_rapid.template_capture import current_run
from rapid_integrations import Completion

# Settings of the call that is being answered: LangChain's cache asks the model for its identity, not the call.
_call_settings: ContextVar[Mapping[str, Any] | None] = ContextVar("rapid_call_settings", default=None)
_NO_SETTINGS = ("tags", "metadata", "run_name", "run_id")


class RapidLLM(RapidModel, BaseLLM):
    """Retrieval-augmented speculative decoding as an LLM of LangChain; for the settings see `RapidModel`.

        llm = RapidLLM(target="smollm2-135m-instruct", max_tokens=100)
        (prompt | llm).invoke({"context": handbook, "question": "How long is the probation period?"})

    A model with a chat template reads a prompt as a user message, unless `apply_chat_template` is False. Threads and
    tasks may share one. Answers carry token counts and decoding statistics in `generation_info`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    apply_chat_template: bool | None = Field(
        default=None, description="None wraps a prompt as a user message where the model has a template"
    )

    @property
    def _llm_type(self) -> str:
        return "rapid"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        params = {**super()._identifying_params, "apply_chat_template": self.apply_chat_template}
        if call := _call_settings.get():
            params["call"] = dict(sorted(call.items()))
        return params

    # --- one after another: the second prompt finds what it shares with the first in the prefix cache ---------------

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self.streaming and len(prompts) == 1:
            return _result([self._streamed(prompts[0], stop, run_manager, kwargs)])
        run = None if run_manager is None or len(prompts) > 1 else run_manager.parent_run_id
        return _result([self._answer(self._request(prompt, stop, kwargs, run)) for prompt in prompts])

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        run = None if run_manager is None or len(prompts) > 1 else run_manager.parent_run_id
        completions = []
        for prompt in prompts:
            request = self._request(prompt, stop, kwargs, run)
            if self.streaming and len(prompts) == 1 and run_manager is not None:
                async with await self._aopen(request) as stream:
                    chunks = []
                    async for chunk in request.deadline.awatch(stream):
                        chunks.append(chunk)
                        await run_manager.on_llm_new_token(chunk.text, chunk=generation_chunk(chunk, ()))
                    completions.append(Completion.join(chunks, stream.prepared.retrieved))
            else:
                completions.append(await self._aanswer(request))
        return _result(completions)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        request = self._request(prompt, stop, kwargs, None if run_manager is None else run_manager.parent_run_id)
        with self._open(request) as stream:
            for chunk in request.deadline.watch(stream):
                piece = generation_chunk(chunk, stream.prepared.retrieved)
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        request = self._request(prompt, stop, kwargs, None if run_manager is None else run_manager.parent_run_id)
        async with await self._aopen(request) as stream:
            async for chunk in request.deadline.awatch(stream):
                piece = generation_chunk(chunk, stream.prepared.retrieved)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece

    # --- what LangChain's own forms leave out -----------------------------------------------------------------------

    def generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer prompts; a cached answer counts only for a call with the same settings."""
        with _settings_of_call(kwargs):
            return super().generate(prompts, stop, callbacks, **kwargs)

    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer prompts; a cached answer counts only for a call with the same settings."""
        with _settings_of_call(kwargs):
            return await super().agenerate(prompts, stop, callbacks, **kwargs)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Answer `inputs`; with `return_exceptions`, what is wrong with one of them is that one's result only."""
        if not return_exceptions:
            return super().batch(inputs, config, **kwargs)
        return Runnable.batch(self, inputs, config, return_exceptions=True, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Answer `inputs`; with `return_exceptions`, what is wrong with one of them is that one's result only."""
        if not return_exceptions:
            return await super().abatch(inputs, config, **kwargs)
        return await Runnable.abatch(self, inputs, config, return_exceptions=True, **kwargs)

    def _streamed(
        self,
        prompt: str,
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        kwargs: dict[str, Any],
    ) -> Completion:
        """Answer, and report every piece of it to the callbacks."""
        request = self._request(prompt, stop, kwargs, None if run_manager is None else run_manager.parent_run_id)
        with self._open(request) as stream:
            chunks = []
            for chunk in request.deadline.watch(stream):
                chunks.append(chunk)
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=generation_chunk(chunk, ()))
            return Completion.join(chunks, stream.prepared.retrieved)

    def _request(self, prompt: str, stop: list[str] | None, overrides: dict[str, Any], run: Any) -> Request:
        overrides = dict(overrides)
        call = Parts.take(overrides)
        template = overrides.pop("apply_chat_template", self.apply_chat_template)
        options, deadline = self._options(stop, overrides)
        options["apply_chat_template"] = template
        return Request(annotated_text(prompt, call, self.use_templates, current_run(run)), options, deadline)


@contextmanager
def _settings_of_call(kwargs: Mapping[str, Any]) -> Iterator[None]:
    token = _call_settings.set({name: repr(value) for name, value in kwargs.items() if name not in _NO_SETTINGS})
    try:
        yield
    finally:
        _call_settings.reset(token)


def _result(completions: list[Completion]) -> LLMResult:
    usage: dict[str, int] = {}
    for completion in completions:
        for name, count in token_usage(completion).items():
            usage[name] = usage.get(name, 0) + count
    output = {"token_usage": usage, "model_name": completions[0].stats.target} if completions else {}
    return LLMResult(generations=[[generation(completion)] for completion in completions], llm_output=output)
