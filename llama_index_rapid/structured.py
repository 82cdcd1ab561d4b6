"""Structured output: `structured_predict` and its three variants, with the schema enforced while decoding.

LlamaIndex's own program asks for JSON and parses the answer. Here, the decoder allows only JSON of the schema.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Any, TypeVar, cast

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program.utils import process_streaming_objects
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import BasePydanticProgram, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel

from llama_index_rapid.annotations import AnnotatedText, Parts, annotated, annotation_of
from llama_index_rapid.asked_for_json import parts_before_format, schema_of_class
from rapid_integrations import ConfigurationError, ContextOverflowError, IncompleteOutputError, StructuredOutput

dispatcher = get_dispatcher(__name__)

_LEAST_ROOM = 16  # tokens; an answer with less room than this is not started
_T = TypeVar("_T")


class RapidProgram(BasePydanticProgram[BaseModel]):
    """A prompt whose answer is an object of a class. The prompt shows the schema, and the decoder enforces it.

    It can replace LlamaIndex's own programs wherever `program=...` is accepted, and the model's chat template need not
    support tools:

        PydanticSingleSelector.from_defaults(
            program=RapidProgram.from_defaults(SingleSelection, DEFAULT_SINGLE_PYD_SELECT_PROMPT_TMPL, llm=llm)
        )

    Raises:
        ConfigurationError: the class has no JSON schema.
    """

    def __init__(self, llm: LLM, output_cls: type[BaseModel], prompt: BasePromptTemplate) -> None:
        # Not checked here, because the class validates the answer.
        self._structured = StructuredOutput(json_schema=schema_of_class(output_cls), checked=False)
        self._llm = llm
        self._output_cls = output_cls
        self._prompt = prompt
        self._format = PydanticOutputParser(output_cls).get_format_string(escape_json=False)

    @classmethod
    def from_defaults(
        cls,
        output_cls: type[BaseModel],
        prompt_template_str: str | None = None,
        prompt: BasePromptTemplate | None = None,
        llm: LLM | None = None,
        **kwargs: Any,
    ) -> RapidProgram:
        """Return a program over a template or its text. `llm` is a `RapidLLM`, by default `Settings.llm`.

        Raises:
            ConfigurationError: neither or both of the prompts were given, or the LLM is not a `RapidLLM`.
        """
        if (prompt is None) == (prompt_template_str is None):
            raise ConfigurationError("give exactly one of prompt and prompt_template_str")
        llm = LlamaIndexSettings.llm if llm is None else llm
        if not isinstance(llm, StructuredPrediction):
            raise ConfigurationError(
                f"a RapidProgram needs a RapidLLM, which can enforce a schema; given: {type(llm).__name__}"
            )
        return cls(llm, output_cls, PromptTemplate(prompt_template_str or "") if prompt is None else prompt)

    @property
    def output_cls(self) -> type[BaseModel]:
        """The class of the answers."""
        return self._output_cls

    @property
    def prompt(self) -> BasePromptTemplate:
        """The template. It can be assigned."""
        return self._prompt

    @prompt.setter
    def prompt(self, prompt: BasePromptTemplate) -> None:
        self._prompt = prompt

    def __call__(self, *, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any) -> BaseModel:
        """Return the object that answers the prompt."""
        given = self._given(prompt_args)
        if isinstance(given, str):
            ask = self._llm.complete
            return self._parse(
                _within_the_window(lambda **o: ask(given, formatted=True, **o), self._options(llm_kwargs))
            )
        return self._parse(_within_the_window(lambda **o: self._llm.chat(given, **o), self._options(llm_kwargs)))

    async def acall(self, *, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any) -> BaseModel:
        """Return the object that answers the prompt, without blocking the event loop."""
        given = self._given(prompt_args)
        options = self._options(llm_kwargs)
        if isinstance(given, str):
            ask = self._llm.acomplete
            return self._parse(await _awithin_the_window(lambda **o: ask(given, formatted=True, **o), options))
        return self._parse(await _awithin_the_window(lambda **o: self._llm.achat(given, **o), options))

    def stream_call(
        self, *, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Generator[BaseModel, None, None]:
        """Yield partial objects while the answer is written, and the complete object at the end."""
        given = self._given(prompt_args)
        options = self._options(llm_kwargs)
        responses: Any
        if isinstance(given, str):
            ask = self._llm.stream_complete
            responses = _within_the_window(lambda **o: ask(given, formatted=True, **o), options)
        else:
            responses = _within_the_window(lambda **o: self._llm.stream_chat(given, **o), options)

        def pieces() -> Generator[BaseModel, None, None]:
            last, so_far = None, None
            for last in responses:
                so_far = self._partial(last, so_far)
                yield so_far
            yield self._parse(last)

        return pieces()

    async def astream_call(
        self, *, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> AsyncGenerator[BaseModel, None]:
        """Yield partial objects while the answer is written, and the complete object at the end."""
        given = self._given(prompt_args)
        options = self._options(llm_kwargs)
        responses: Any
        if isinstance(given, str):
            ask = self._llm.astream_complete
            responses = await _awithin_the_window(lambda **o: ask(given, formatted=True, **o), options)
        else:
            responses = await _awithin_the_window(lambda **o: self._llm.astream_chat(given, **o), options)

        async def pieces() -> AsyncGenerator[BaseModel, None]:
            last, so_far = None, None
            async for last in responses:
                so_far = self._partial(last, so_far)
                yield so_far
            yield self._parse(last)

        return pieces()

    def _given(self, prompt_args: dict[str, Any]) -> list[ChatMessage] | AnnotatedText:
        """Return the rendered prompt with the schema appended."""
        if self._llm.metadata.is_chat_model:
            messages = self._llm._get_messages(self._prompt, **prompt_args)
            return [*messages[:-1], _with_format(messages, self._format)]
        prompt = self._llm._get_prompt(self._prompt, **prompt_args)
        parts = prompt.parts if isinstance(prompt, AnnotatedText) else Parts()
        return AnnotatedText(prompt + self._format, parts if parts.known else parts_before_format(prompt, parts.query))

    def _options(self, llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
        return {**(llm_kwargs or {}), "structured": self._structured}

    def _partial(self, response: Any, so_far: BaseModel | None) -> Any:
        try:
            return process_streaming_objects(
                response, self._output_cls, cur_objects=None if so_far is None else [so_far], llm=self._llm
            )
        except Exception:  # a validator of the class may refuse a partial object
            return so_far

    def _parse(self, response: Any) -> BaseModel:
        text = "" if response is None else _text_of(response)
        try:
            return self._output_cls.model_validate_json(text)
        except Exception as error:  # a validator of the class may raise anything
            raise IncompleteOutputError(
                f"{self._output_cls.__name__} could not be made of the answer {text!r:.200}. Its text follows the JSON "
                "schema, so either it was cut off (raise max_new_tokens, or drop the stop strings), or the class "
                f"demands more than its schema says: {error}"
            ) from error


class StructuredPrediction(FunctionCallingLLM):
    """The LLM class's structured endpoints, which use `RapidProgram`.

    Events and spans are those of LlamaIndex's own methods. With a `pydantic_program_mode` other than the default,
    LlamaIndex's own methods run.
    """

    def structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Return an object of `output_cls`; see `LLM.structured_predict`."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        result = RapidProgram(self, output_cls, prompt)(llm_kwargs=llm_kwargs, **prompt_args)
        dispatcher.event(LLMStructuredPredictEndEvent(output=result))
        return result

    async def astructured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Return an object of `output_cls` without blocking the event loop."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        result = await RapidProgram(self, output_cls, prompt).acall(llm_kwargs=llm_kwargs, **prompt_args)
        dispatcher.event(LLMStructuredPredictEndEvent(output=result))
        return result

    def _structured_stream_call(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return super()._structured_stream_call(output_cls, cast(PromptTemplate, prompt), llm_kwargs, **prompt_args)
        return RapidProgram(self, output_cls, prompt).stream_call(llm_kwargs=llm_kwargs, **prompt_args)

    async def _structured_astream_call(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return await super()._structured_astream_call(
                output_cls, cast(PromptTemplate, prompt), llm_kwargs, **prompt_args
            )
        return await RapidProgram(self, output_cls, prompt).astream_call(llm_kwargs=llm_kwargs, **prompt_args)


def _with_format(messages: Sequence[ChatMessage], instruction: str) -> ChatMessage:
    """Return the last message with the instruction appended. Its context is located first."""
    last = messages[-1]
    text = last.content or ""
    said = ChatMessage(role=last.role, content=text + instruction, additional_kwargs=dict(last.additional_kwargs))
    if any(annotation_of(message).known for message in messages):
        return said
    # The messages come from elsewhere (`as_structured_llm`) or from a template without known variables. The schema
    # must not be taken for the question or a document.
    instructing = last.role == MessageRole.SYSTEM and any(each.role == MessageRole.USER for each in messages)
    return annotated(said, parts_before_format(text, annotation_of(last).query, instructing))


def _within_the_window(ask: Callable[..., _T], options: dict[str, Any]) -> _T:
    """Return `ask(**options)`, with fewer new tokens if the schema's text leaves too little room.

    Pipelines pack prompts without the schema. An answer that needs more than the rest raises `IncompleteOutputError`.
    """
    try:
        return ask(**options)
    except ContextOverflowError as error:
        return ask(**_with_room(options, error))


async def _awithin_the_window(ask: Callable[..., Awaitable[_T]], options: dict[str, Any]) -> _T:
    try:
        return await ask(**options)
    except ContextOverflowError as error:
        fewer = _with_room(options, error)
    return await ask(**fewer)


def _with_room(options: dict[str, Any], error: ContextOverflowError) -> dict[str, Any]:
    room = error.context_window - error.prompt_tokens
    if room < _LEAST_ROOM:
        raise error
    return {**{name: value for name, value in options.items() if name != "max_tokens"}, "max_new_tokens": room}


def _text_of(response: Any) -> str:
    return str(response.text if hasattr(response, "text") else response.message.content or "")
