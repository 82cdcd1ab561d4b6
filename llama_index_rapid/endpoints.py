"""The eight endpoints of LlamaIndex's LLM class: completion and chat, whole or streamed, synchronous or not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM

from llama_index_rapid.errors import reaching_the_caller
from llama_index_rapid.responses import Answer, whole
from rapid_integrations.progress import OnProgress

if TYPE_CHECKING:
    from rapid_integrations import RapidEngine
    from rapid_integrations.prompt import PromptLike

_DOING = "a part that this request was given"


@dataclass(frozen=True)
class Request:
    """What the engine is asked.

    Attributes:
        prompt, options: arguments of `RapidEngine.stream`.
        wanted: what the answer must be, if it must be whole to be of any use (see `Answer`); None for text.
    """

    prompt: PromptLike
    options: dict[str, Any]
    wanted: str | None = None


class Endpoints(FunctionCallingLLM):
    """Translates calls and answers; what the engine is asked is `_request`'s to say."""

    _engine: RapidEngine = PrivateAttr()

    if TYPE_CHECKING:  # `RapidLLM` has them. Declared abstract, they would show in traces as calls of the model.

        @property
        def _model_name(self) -> str: ...

        def _written_out(self, prompt: str, formatted: bool) -> str: ...

        def _request(
            self, prompt: str | Sequence[ChatMessage], overrides: dict[str, Any], raw: bool = False
        ) -> Request: ...

        def _progress(self) -> AbstractContextManager[OnProgress | None]: ...

    # --- completion -------------------------------------------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer `prompt`. A model with a chat template reads it as a user message, unless `formatted`."""
        with reaching_the_caller(_DOING):
            request = self._request(self._written_out(prompt, formatted), kwargs, raw=formatted)
            with self._progress() as progress:
                completion = self._engine.generate(request.prompt, **self._reporting(request.options, progress))
            return whole(completion, self._model_name, request.wanted).completion()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer `prompt` piece by piece; what is wrong with it is raised here, not with the first piece."""
        with reaching_the_caller(_DOING):
            request = self._request(self._written_out(prompt, formatted), kwargs, raw=formatted)
            stream = self._engine.stream(request.prompt, **request.options)

        def pieces() -> CompletionResponseGen:
            answer = Answer(self._model_name, stream.prepared.retrieved, request.wanted)
            with stream, reaching_the_caller(_DOING):
                for chunk in stream:
                    yield answer.completion(delta=answer.add(chunk))

        return pieces()

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer `prompt` without blocking the event loop."""
        with reaching_the_caller(_DOING):
            request = self._request(self._written_out(prompt, formatted), kwargs, raw=formatted)
            completion = await self._engine.agenerate(request.prompt, **request.options)
            return whole(completion, self._model_name, request.wanted).completion()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Answer `prompt` piece by piece without blocking the event loop."""
        with reaching_the_caller(_DOING):
            request = self._request(self._written_out(prompt, formatted), kwargs, raw=formatted)
            stream = await self._engine.astream(request.prompt, **request.options)

        async def pieces() -> CompletionResponseAsyncGen:
            answer = Answer(self._model_name, stream.prepared.retrieved, request.wanted)
            async with stream:
                with reaching_the_caller(_DOING):
                    async for chunk in stream:
                        yield answer.completion(delta=answer.add(chunk))

        return pieces()

    # --- chat -------------------------------------------------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        with reaching_the_caller(_DOING):
            request = self._request(messages, kwargs)
            with self._progress() as progress:
                completion = self._engine.generate(request.prompt, **self._reporting(request.options, progress))
            return whole(completion, self._model_name, request.wanted).chat()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece; what is wrong with it is raised here, not with the first piece."""
        with reaching_the_caller(_DOING):
            request = self._request(messages, kwargs)
            stream = self._engine.stream(request.prompt, **request.options)

        def pieces() -> ChatResponseGen:
            answer = Answer(self._model_name, stream.prepared.retrieved, request.wanted)
            with stream, reaching_the_caller(_DOING):
                for chunk in stream:
                    yield answer.chat(delta=answer.add(chunk))

        return pieces()

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation without blocking the event loop."""
        with reaching_the_caller(_DOING):
            request = self._request(messages, kwargs)
            completion = await self._engine.agenerate(request.prompt, **request.options)
            return whole(completion, self._model_name, request.wanted).chat()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece without blocking the event loop."""
        with reaching_the_caller(_DOING):
            request = self._request(messages, kwargs)
            stream = await self._engine.astream(request.prompt, **request.options)

        async def pieces() -> ChatResponseAsyncGen:
            answer = Answer(self._model_name, stream.prepared.retrieved, request.wanted)
            async with stream:
                with reaching_the_caller(_DOING):
                    async for chunk in stream:
                        yield answer.chat(delta=answer.add(chunk))

        return pieces()

    @staticmethod
    def _reporting(options: dict[str, Any], progress: OnProgress | None) -> dict[str, Any]:
        return options if progress is None else {"on_progress": progress, **options}
