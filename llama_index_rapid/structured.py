"""Structured output: `structured_predict` and its three siblings, constrained to the schema while decoding.

LlamaIndex's own program asks for JSON and parses what comes; here the model cannot write anything else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, cast

from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program.utils import process_streaming_objects
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.types import BasePydanticProgram, PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel, ValidationError

from llama_index_rapid.annotations import ANNOTATION, AnnotatedText, Parts
from rapid_integrations import IncompleteOutputError, StructuredOutput
from rapid_integrations.segmentation import segment
from rapid_integrations.structured.class_schema import class_schema

dispatcher = get_dispatcher(__name__)


class ConstrainedProgram(BasePydanticProgram[BaseModel]):
    """A prompt whose answer is an object of a class: the schema is shown in the prompt and enforced by the decoder."""

    def __init__(self, llm: LLM, output_cls: type[BaseModel], prompt: BasePromptTemplate) -> None:
        self._llm = llm
        self._output_cls = output_cls
        self._prompt = prompt
        self._format = PydanticOutputParser(output_cls).get_format_string(escape_json=False)
        self._structured = StructuredOutput(json_schema=class_schema(output_cls), checked=False)

    @property
    def output_cls(self) -> type[BaseModel]:
        """The class of the answers."""
        return self._output_cls

    def __call__(self, *, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any) -> BaseModel:
        """Answer."""
        given = self._given(prompt_args)
        options = self._options(llm_kwargs)
        if isinstance(given, str):
            return self._parse(self._llm.complete(given, formatted=True, **options).text, options)
        return self._parse(self._llm.chat(given, **options).message.content, options)

    async def acall(self, *, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any) -> BaseModel:
        """Answer without blocking the event loop."""
        given = self._given(prompt_args)
        options = self._options(llm_kwargs)
        if isinstance(given, str):
            return self._parse((await self._llm.acomplete(given, formatted=True, **options)).text, options)
        return self._parse((await self._llm.achat(given, **options)).message.content, options)

    def stream_call(
        self, *, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Generator[BaseModel, None, None]:
        """Yield the object as far as it is written, and last of all the whole one."""
        given = self._given(prompt_args)
        options = self._options(llm_kwargs)
        responses: Any
        if isinstance(given, str):
            responses = self._llm.stream_complete(given, formatted=True, **options)
        else:
            responses = self._llm.stream_chat(given, **options)

        def pieces() -> Generator[BaseModel, None, None]:
            text, so_far = "", None
            for response in responses:
                text = _text_of(response)
                so_far = self._partial(response, so_far)
                yield so_far
            yield self._parse(text, options)

        return pieces()

    async def astream_call(
        self, *, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> AsyncGenerator[BaseModel, None]:
        """Yield the object as far as it is written, and last of all the whole one."""
        given = self._given(prompt_args)
        options = self._options(llm_kwargs)
        responses: Any
        if isinstance(given, str):
            responses = await self._llm.astream_complete(given, formatted=True, **options)
        else:
            responses = await self._llm.astream_chat(given, **options)

        async def pieces() -> AsyncGenerator[BaseModel, None]:
            text, so_far = "", None
            async for response in responses:
                text = _text_of(response)
                so_far = self._partial(response, so_far)
                yield so_far
            yield self._parse(text, options)

        return pieces()

    def _given(self, prompt_args: dict[str, Any]) -> list[ChatMessage] | AnnotatedText:
        """Return the rendered prompt with the schema behind it."""
        if self._llm.metadata.is_chat_model:
            messages = self._llm._get_messages(self._prompt, **prompt_args)
            return [*messages[:-1], _with_format(messages, self._format)]
        prompt = self._llm._get_prompt(self._prompt, **prompt_args)
        parts = prompt.parts if isinstance(prompt, AnnotatedText) else Parts()
        return AnnotatedText(prompt + self._format, parts)

    def _options(self, llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
        return {**(llm_kwargs or {}), "structured": self._structured}

    def _partial(self, response: Any, so_far: BaseModel | None) -> Any:
        return process_streaming_objects(
            response, self._output_cls, cur_objects=None if so_far is None else [so_far], llm=self._llm
        )

    def _parse(self, text: str | None, options: dict[str, Any]) -> BaseModel:
        try:
            return self._output_cls.model_validate_json(text or "")
        except ValidationError as error:
            raise IncompleteOutputError(
                f"{self._output_cls.__name__} could not be made of the answer {text!r:.200}. It keeps to the JSON "
                "schema as far as it goes: either it was cut off (raise max_new_tokens, or drop the stop strings), or "
                f"the class demands more than its schema says: {error}"
            ) from error


class StructuredPrediction(FunctionCallingLLM):
    """The LLM class's structured endpoints, over `ConstrainedProgram`.

    Events and spans are those of LlamaIndex's own methods. A `pydantic_program_mode` other than the default is obeyed.
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
        result = ConstrainedProgram(self, output_cls, prompt)(llm_kwargs=llm_kwargs, **prompt_args)
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
        result = await ConstrainedProgram(self, output_cls, prompt).acall(llm_kwargs=llm_kwargs, **prompt_args)
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
        return ConstrainedProgram(self, output_cls, prompt).stream_call(llm_kwargs=llm_kwargs, **prompt_args)

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
        return await ConstrainedProgram(self, output_cls, prompt).astream_call(llm_kwargs=llm_kwargs, **prompt_args)


def _with_format(messages: Sequence[ChatMessage], instruction: str) -> ChatMessage:
    """Return the last message with the instruction behind it; where its context stands is found out before."""
    last = messages[-1]
    text = last.content or ""
    kwargs = dict(last.additional_kwargs)
    if not any(ANNOTATION in message.additional_kwargs for message in messages):
        found = segment(text)  # rendered elsewhere (`as_structured_llm`): the schema must not pass for the question
        if found.context_spans:
            spans = [list(span) for span in found.context_spans]
            kwargs[ANNOTATION] = {"context_spans": spans, "query": found.query, "segmentation": found.method}
    return ChatMessage(role=last.role, content=text + instruction, additional_kwargs=kwargs)


def _text_of(response: Any) -> str:
    return str(response.text if hasattr(response, "text") else response.message.content or "")
