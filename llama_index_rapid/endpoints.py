"""The eight endpoints of LlamaIndex's LLM class: completion and chat, whole or streamed, synchronous or not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
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

from llama_index_rapid.responses import Answer, whole
from rapid_integrations.progress import OnProgress

if TYPE_CHECKING:
    from rapid_integrations import RapidEngine
    from rapid_integrations.prompt import PromptLike


class Endpoints(FunctionCallingLLM):
    """Translates calls and answers; what the engine is asked is `_request`'s to say."""

    _engine: RapidEngine = PrivateAttr()

    @property
    @abstractmethod
    def _model_name(self) -> str: ...

    @abstractmethod
    def _written_out(self, prompt: str, formatted: bool) -> str: ...

    @abstractmethod
    def _request(
        self, prompt: str | Sequence[ChatMessage], overrides: dict[str, Any], raw: bool = False
    ) -> tuple[PromptLike, dict[str, Any]]: ...

    @abstractmethod
    def _progress(self) -> AbstractContextManager[OnProgress | None]: ...

    # --- completion -------------------------------------------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer `prompt`. A model with a chat template reads it as a user message, unless `formatted`."""
        request, options = self._request(self._written_out(prompt, formatted), kwargs, raw=formatted)
        with self._progress() as progress:
            completion = self._engine.generate(request, **self._reporting(options, progress))
        return whole(completion, self._model_name).completion()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer `prompt` piece by piece; what is wrong with it is raised here, not with the first piece."""
        request, options = self._request(self._written_out(prompt, formatted), kwargs, raw=formatted)
        with (shown := self._progress()) as progress:
            stream = self._engine.stream(request, **self._reporting(options, progress))

        def pieces() -> CompletionResponseGen:
            answer = Answer(self._model_name, stream.prepared.retrieved)
            with shown, stream:
                for chunk in stream:
                    yield answer.completion(delta=answer.add(chunk))

        return pieces()

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer `prompt` without blocking the event loop."""
        request, options = self._request(self._written_out(prompt, formatted), kwargs, raw=formatted)
        with self._progress() as progress:
            completion = await self._engine.agenerate(request, **self._reporting(options, progress))
        return whole(completion, self._model_name).completion()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Answer `prompt` piece by piece without blocking the event loop."""
        request, options = self._request(self._written_out(prompt, formatted), kwargs, raw=formatted)
        with (shown := self._progress()) as progress:
            stream = await self._engine.astream(request, **self._reporting(options, progress))

        async def pieces() -> CompletionResponseAsyncGen:
            answer = Answer(self._model_name, stream.prepared.retrieved)
            with shown:
                async with stream:
                    async for chunk in stream:
                        yield answer.completion(delta=answer.add(chunk))

        return pieces()

    # --- chat -------------------------------------------------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        request, options = self._request(messages, kwargs)
        with self._progress() as progress:
            completion = self._engine.generate(request, **self._reporting(options, progress))
        return whole(completion, self._model_name).chat()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece; what is wrong with it is raised here, not with the first piece."""
        request, options = self._request(messages, kwargs)
        with (shown := self._progress()) as progress:
            stream = self._engine.stream(request, **self._reporting(options, progress))

        def pieces() -> ChatResponseGen:
            answer = Answer(self._model_name, stream.prepared.retrieved)
            with shown, stream:
                for chunk in stream:
                    yield answer.chat(delta=answer.add(chunk))

        return pieces()

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation without blocking the event loop."""
        request, options = self._request(messages, kwargs)
        with self._progress() as progress:
            completion = await self._engine.agenerate(request, **self._reporting(options, progress))
        return whole(completion, self._model_name).chat()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece without blocking the event loop."""
        request, options = self._request(messages, kwargs)
        with (shown := self._progress()) as progress:
            stream = await self._engine.astream(request, **self._reporting(options, progress))

        async def pieces() -> ChatResponseAsyncGen:
            answer = Answer(self._model_name, stream.prepared.retrieved)
            with shown:
                async with stream:
                    async for chunk in stream:
                        yield answer.chat(delta=answer.add(chunk))

        return pieces()

    @staticmethod
    def _reporting(options: dict[str, Any], progress: OnProgress | None) -> dict[str, Any]:
        return options if progress is None else {"on_progress": progress, **options}
