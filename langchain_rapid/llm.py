"""`RapidLLM`: a plain LangChain LLM (from text to text) over a RAPID engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, Field

from langchain_rapid.annotations import Parts, annotated_text
from langchain_rapid.at_once import aanswer_at_once, answer_at_once
from langchain_rapid.errors import as_langchain_errors
from langchain_rapid.messages import with_texts
from langchain_rapid.rapid_model import RapidModel, Request
from langchain_rapid.responses import Responses, llm_output
from langchain_rapid.structured_output import with_words_behind
from langchain_rapid.template_capture import current_run
from rapid_integrations import Completion
from rapid_integrations.adapters.fields import as_it_is

# The settings of the current call. LangChain's cache asks only the model for its identity, not the call.
_call_settings: ContextVar[Mapping[str, Any] | None] = ContextVar("rapid_call_settings", default=None)
_NO_SETTINGS = ("tags", "metadata", "run_name", "run_id")


class RapidLLM(RapidModel, BaseLLM):
    """Retrieval-augmented speculative decoding as an LLM of LangChain. `RapidModel` has the settings.

        llm = RapidLLM(target="smollm2-135m-instruct", max_tokens=100)
        (prompt | llm).invoke({"context": handbook, "question": "How long is the probation period?"})

    A model with a chat template reads a prompt as a user message, unless `apply_chat_template` is False. Threads and
    tasks may share one object. Answers carry token counts and decoding statistics in `generation_info`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    apply_chat_template: bool | None = Field(
        default=None, description="None wraps a prompt as a user message if the model has a chat template"
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

    # --- answers ----------------------------------------------------------------------------------------------------

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        run = None if run_manager is None else run_manager.parent_run_id
        answer = self._answer
        if self.streaming and len(prompts) == 1:
            answer = partial(self._streamed, run_manager=run_manager)

        def answered(prompt: str) -> tuple[Request, Completion]:
            request = self._request(prompt, stop, kwargs, run)  # starts the deadline of this prompt
            return request, answer(request)

        return _result(answer_at_once(answered, prompts))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        run = None if run_manager is None else run_manager.parent_run_id

        async def answered(prompt: str) -> tuple[Request, Completion]:
            request = self._request(prompt, stop, kwargs, run)
            return request, await self._aanswer(request)

        if not self.streaming or len(prompts) != 1 or run_manager is None:
            return _result(await aanswer_at_once(answered, prompts))
        request = self._request(prompts[0], stop, kwargs, run)
        async with await self._aopen(request) as stream:
            chunks = []
            async for chunk in request.awatch(stream):
                chunks.append(chunk)
                await run_manager.on_llm_new_token(chunk.text, chunk=Responses().generation_chunk(chunk))
            return _result([(request, Completion.join(chunks, stream.prepared.retrieved))])

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        request = self._request(prompt, stop, kwargs, None if run_manager is None else run_manager.parent_run_id)
        with self._open(request) as stream:
            responses = request.responses(stream)
            for chunk in request.watch(stream):
                piece = responses.generation_chunk(chunk)
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
            responses = request.responses(stream)
            async for chunk in request.awatch(stream):
                piece = responses.generation_chunk(chunk)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece

    # --- corrections of LangChain's own methods ---------------------------------------------------------------------

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        return _readable(super()._convert_input(model_input))

    def generate_prompt(
        self,
        prompts: list[PromptValue],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer prompts. A part of a message that is not text is refused, as the chat model does."""
        return super().generate_prompt([_readable(each) for each in prompts], stop, callbacks, **kwargs)

    async def agenerate_prompt(
        self,
        prompts: list[PromptValue],
        stop: list[str] | None = None,
        callbacks: Callbacks | list[Callbacks] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Answer prompts. A part of a message that is not text is refused, as the chat model does."""
        return await super().agenerate_prompt([_readable(each) for each in prompts], stop, callbacks, **kwargs)

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
        """Answer `inputs`. With `return_exceptions`, the error of an input becomes its result, and the others go on."""
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
        """Answer `inputs`. With `return_exceptions`, the error of an input becomes its result, and the others go on."""
        if not return_exceptions:
            return await super().abatch(inputs, config, **kwargs)
        return await Runnable.abatch(self, inputs, config, return_exceptions=True, **kwargs)

    def _streamed(self, request: Request, run_manager: CallbackManagerForLLMRun | None) -> Completion:
        """Answer, and report every piece of the answer to the callbacks."""
        with self._open(request) as stream:
            chunks = []
            for chunk in request.watch(stream):
                chunks.append(chunk)
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=Responses().generation_chunk(chunk))
            return Completion.join(chunks, stream.prepared.retrieved)

    def _request(self, prompt: str, stop: list[str] | None, overrides: dict[str, Any], run: Any) -> Request:
        with as_langchain_errors():
            overrides = dict(overrides)
            call = Parts.take(overrides)
            template = self._of_call("apply_chat_template", overrides)
            settings = self._settings(stop, overrides)
            settings.engine["apply_chat_template"] = template
            if template is False:
                as_it_is(settings.engine, overrides)
            given = annotated_text(prompt, call, self.use_templates, current_run(run))
            # If the model continues the text, an instruction after it would become part of the text.
            as_message = template is not False and self._engine.vocabulary.chat_template is not None
            if as_message and prompt.strip() and (instruction := settings.instruction([prompt])):
                given = with_words_behind(given, instruction)
            return settings.request(given)


def _readable(prompt: PromptValue) -> PromptValue:
    with as_langchain_errors():
        return with_texts(prompt)


@contextmanager
def _settings_of_call(kwargs: Mapping[str, Any]) -> Iterator[None]:
    token = _call_settings.set({name: repr(value) for name, value in kwargs.items() if name not in _NO_SETTINGS})
    try:
        yield
    finally:
        _call_settings.reset(token)


def _result(answered: Sequence[tuple[Request, Completion]]) -> LLMResult:
    generations = [
        [Responses(completion.retrieved, request.with_texts).generation(completion)] for request, completion in answered
    ]
    return LLMResult(generations=generations, llm_output=llm_output([completion for _, completion in answered]))
