"""`ChatRapid`: a LangChain chat model over a RAPID engine, with tools and structured output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, PrivateAttr

from langchain_rapid.annotations import Parts, annotated_messages
from langchain_rapid.errors import as_langchain_errors
from langchain_rapid.messages import text_of, to_engine_messages
from langchain_rapid.rapid_model import RapidModel, Request
from langchain_rapid.responses import Responses, combined_outputs, llm_output
from langchain_rapid.setting_names import choice_of
from langchain_rapid.structured_output import (
    METHODS,
    StructuredAnswer,
    json_schema_of,
    told_as,
    with_instruction,
)
from langchain_rapid.template_capture import current_run
from rapid_integrations import Completion, StructuredOutput
from rapid_integrations.errors import ConfigurationError, PromptError

if TYPE_CHECKING:
    from rapid_integrations import RapidEngine

Tools = Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool]


class ChatRapid(RapidModel, BaseChatModel):
    """Retrieval-augmented speculative decoding as a chat model of LangChain. `RapidModel` has the settings.

        chat = ChatRapid(target="smollm2-135m-instruct", max_tokens=100)
        chat.invoke([("system", handbook), ("human", "How long is the probation period?")])

    Messages, tools and tool results go through the model's own chat template. Threads and tasks may share one object.
    Answers carry token counts in `usage_metadata` and decoding statistics in `response_metadata["rapid"]`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _profile_is_ours: bool = PrivateAttr(default=False)

    def __init__(self, *unnamed: Any, **settings: Any) -> None:
        """Load the models; see `RapidModel`.

        Raises:
            ConfigurationError: see `RapidModel`; also if the model has no chat template.
        """
        super().__init__(*unnamed, **settings)
        if self._engine.vocabulary.chat_template is None:
            raise ConfigurationError(
                f"{self.model_name} has no chat template, so it reads no messages: use an instruction-tuned model, or "
                "RapidLLM, which gives it plain text"
            )
        if settings.get("profile") is None:
            self.profile = None  # from now on, it is read from the model

    def _when_set(self, name: str) -> None:
        super()._when_set(name)
        if name == "profile":
            self._profile_is_ours = self.profile is None
        if self._profile_is_ours and name in ("profile", "max_new_tokens"):
            self.__dict__["profile"] = self._resolve_model_profile()

    def _when_opened(self, engine: RapidEngine) -> None:
        super()._when_opened(engine)
        if self._profile_is_ours:  # for a copy over another model, or an unpickled one
            self.__dict__["profile"] = self._resolve_model_profile()

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        return combined_outputs(llm_outputs)

    @property
    def _llm_type(self) -> str:
        return "rapid-chat"

    def _resolve_model_profile(self) -> ModelProfile | None:
        """Return the profile of the loaded model. Its input limit leaves room for the answer in the context window."""
        if not self._is_loaded():
            return None
        tools = self._engine.supports_tools
        return ModelProfile(
            name=self.model_name,
            open_weights=True,
            max_input_tokens=max(self._engine.target.context_window - self.max_new_tokens, 0),
            max_output_tokens=self.max_new_tokens,
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            pdf_inputs=False,
            reasoning_output=False,
            tool_calling=tools,
            tool_choice=tools,
            # If False, agents ask for the answer as a call of one more tool. Models with tools were trained for that
            # form, and it allows several schemas.
            structured_output=not tools,
            temperature=True,
        )

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return how many tokens the target reads for `messages`, including those of its chat template and of tools."""
        given = to_engine_messages(messages) if messages else []
        declared = [convert_to_openai_tool(tool) for tool in tools or ()]
        try:
            arguments = self.chat_template_kwargs
            return self._engine.count_tokens(given, tools=declared, chat_template_kwargs=arguments)
        except PromptError:  # a part of a conversation, which the template refuses by itself
            return sum(len(self.get_token_ids(message["content"])) for message in given)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs, run_manager)
        with self._open(request) as stream:
            completion = Completion.join(list(request.watch(stream)), stream.prepared.retrieved)
            return _result(request.responses(stream, self._engine), completion)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs, run_manager)
        async with await self._aopen(request) as stream:
            completion = Completion.join([chunk async for chunk in request.awatch(stream)], stream.prepared.retrieved)
            return _result(request.responses(stream, self._engine), completion)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs, run_manager)
        with self._open(request) as stream:
            responses = request.responses(stream, self._engine)
            for chunk in request.watch(stream):
                piece = responses.chat_chunk(chunk)
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs, run_manager)
        async with await self._aopen(request) as stream:
            responses = request.responses(stream, self._engine)
            async for chunk in request.awatch(stream):
                piece = responses.chat_chunk(chunk)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece

    # --- tools and structured output --------------------------------------------------------------------------------

    def bind_tools(
        self, tools: Tools, *, tool_choice: str | bool | dict[str, Any] | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call `tools`.

        Args:
            tools: functions, pydantic classes, tools of LangChain, or OpenAI's declarations.
            tool_choice: "auto" (the default), "any" or "required", "none", or a tool's name. Decoding enforces a
                required call and the schemas of its arguments.
            kwargs: further settings of the calls; `parallel_tool_calls=False` allows one call in each answer.

        Raises:
            ConfigurationError: the model's chat template does not support tools.
        """
        kwargs.pop("strict", None)  # arguments follow their schema anyway
        if not tools:
            return self.bind(**kwargs)
        if not self._engine.supports_tools:
            raise ConfigurationError(
                f"{self.model_name} cannot call tools: its chat template does not support them. Use a model that was "
                "trained to call tools (Qwen2.5-Instruct, Llama-3.1-Instruct), or describe them in the prompt and use "
                "with_structured_output"
            )
        bound: dict[str, Any] = {**kwargs, "tools": [convert_to_openai_tool(tool) for tool in tools]}
        if choice := choice_of(tool_choice):
            bound["tool_choice"] = choice
        return self.bind(**bound)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        include_raw: bool = False,
        method: str = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return a runnable whose answers are objects of `schema`. Decoding enforces the schema.

        Args:
            schema: a pydantic class, a dataclass, a TypedDict, another type, a JSON schema or an OpenAI function. None
                with "json_mode" returns dictionaries.
            include_raw: return {"raw": message, "parsed": object or None, "parsing_error": error or None}.
            method: "json_schema" and "function_calling" are the same here: the schema is shown in the prompt and
                enforced. "json_mode" enforces JSON only, and the prompt must describe the object.
            strict: has no effect, because the schema is always enforced.
            kwargs: further settings of the calls. With `tools=`, the model may call a tool instead of answering;
                "parsed" is None then.

        Raises:
            ConfigurationError: the method is unknown, or `schema` has no JSON schema.
        """
        if method not in METHODS:
            raise ConfigurationError(f"method={method!r} is not one of {', '.join(METHODS)}")
        if schema is None and method != "json_mode":
            raise ConfigurationError(f"method={method!r} needs a schema; only method='json_mode' works without")
        json_schema = {"type": "object"} if method == "json_mode" else json_schema_of(schema)
        if tools := kwargs.get("tools"):
            kwargs = {**kwargs, "tools": [convert_to_openai_tool(tool) for tool in tools]}
        llm = self.bind(
            structured=StructuredOutput(json_schema=json_schema, checked=False),  # the parser checks it
            ls_structured_output_format={"kwargs": {"method": method, "strict": strict}, "schema": told_as(schema)},
            **kwargs,
        )
        parser = StructuredAnswer(answer_schema=schema)
        if not include_raw:
            return llm | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=llm) | parsed.with_fallbacks([failed], exception_key="parsing_error")

    def _request(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        overrides: dict[str, Any],
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
    ) -> Request:
        with as_langchain_errors():
            overrides = dict(overrides)
            call = Parts.take(overrides)
            settings = self._settings(stop, overrides)
            run = current_run(None if run_manager is None else run_manager.parent_run_id)
            given = annotated_messages(messages, to_engine_messages(messages), call, self.use_templates, run)
            if instruction := settings.instruction(text_of(message) for message in messages):
                given = with_instruction(given, instruction)
            return settings.request(given)


def _result(responses: Responses, completion: Completion) -> ChatResult:
    return ChatResult(generations=[responses.chat_generation(completion)], llm_output=llm_output([completion]))
