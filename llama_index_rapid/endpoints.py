"""The eight endpoints of LlamaIndex's LLM class: completion and chat, whole or streamed, synchronous or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

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
from rapid_integrations.adapters.held_engine import HoldsEngine
from rapid_integrations.adapters.thinking import Marks, marks_of
from rapid_integrations.outputs import Completion
from rapid_integrations.progress import OnProgress

if TYPE_CHECKING:
    from rapid_integrations.engine.async_stream import AsyncCompletionStream
    from rapid_integrations.engine.stream import CompletionStream
    from rapid_integrations.prompt import PromptLike

_DOING = "a part that this request was given"

Response = TypeVar("Response", CompletionResponse, ChatResponse)


@dataclass(frozen=True)
class Request:
    """A request to the engine.

    Attributes:
        prompt, options: arguments of `RapidEngine.stream`.
        wanted: what the answer must be, if a partial answer is useless (see `Answer`); None for text.
    """

    prompt: PromptLike
    options: dict[str, Any]
    wanted: str | None = None


class Endpoints(FunctionCallingLLM, HoldsEngine):
    """Translates calls and answers. `_request` of the subclass makes the engine's request."""

    if TYPE_CHECKING:  # `RapidLLM` defines them. If they were abstract, traces would show them as calls of the model.

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
            return self._answer(self._completion_request(prompt, formatted, kwargs), Answer.completion)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer `prompt` piece by piece. Errors of the request are raised here, before the first piece."""
        with reaching_the_caller(_DOING):
            return self._pieces(self._completion_request(prompt, formatted, kwargs), Answer.completion)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer `prompt` without blocking the event loop."""
        with reaching_the_caller(_DOING):
            return await self._aanswer(self._completion_request(prompt, formatted, kwargs), Answer.completion)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Answer `prompt` piece by piece without blocking the event loop."""
        with reaching_the_caller(_DOING):
            return await self._apieces(self._completion_request(prompt, formatted, kwargs), Answer.completion)

    # --- chat -------------------------------------------------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        with reaching_the_caller(_DOING):
            return self._answer(self._request(messages, kwargs), Answer.chat)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation piece by piece. Errors of the request are raised here, before the first piece."""
        with reaching_the_caller(_DOING):
            return self._pieces(self._request(messages, kwargs), Answer.chat)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation without blocking the event loop."""
        with reaching_the_caller(_DOING):
            return await self._aanswer(self._request(messages, kwargs), Answer.chat)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation piece by piece without blocking the event loop."""
        with reaching_the_caller(_DOING):
            return await self._apieces(self._request(messages, kwargs), Answer.chat)

    # --- shared by the endpoints ------------------------------------------------------------------------------------

    def _completion_request(self, prompt: str, formatted: bool, overrides: dict[str, Any]) -> Request:
        return self._request(self._written_out(prompt, formatted), overrides, raw=formatted)

    def _answer(self, request: Request, written: Callable[[Answer], Response]) -> Response:
        options = request.options
        with (
            self._progress() as progress,
            self._engine.stream(request.prompt, **_reporting(options, progress)) as stream,
        ):
            completion = Completion.join(list(stream), stream.prepared.retrieved)
            marks = self._marks(request, stream, written)
        return written(whole(completion, self._model_name, request.wanted, marks))

    async def _aanswer(self, request: Request, written: Callable[[Answer], Response]) -> Response:
        with self._progress() as progress:
            async with await self._engine.astream(request.prompt, **_reporting(request.options, progress)) as stream:
                completion = Completion.join([chunk async for chunk in stream], stream.prepared.retrieved)
                marks = self._marks(request, stream, written)
        return written(whole(completion, self._model_name, request.wanted, marks))

    def _marks(
        self, request: Request, stream: CompletionStream | AsyncCompletionStream, written: Callable[..., Response]
    ) -> Marks | None:
        """Return the marks of the answer's thinking, for messages of free form."""
        if written is Answer.completion or request.options["sampling"].structured is not None:
            return None
        return marks_of(self._engine.vocabulary, stream.prepared.target)

    def _pieces(self, request: Request, written: Callable[..., Response]) -> Generator[Response, None, None]:
        with (shown := self._progress()) as progress:
            stream = self._engine.stream(request.prompt, **_reporting(request.options, progress))

        def pieces() -> Generator[Response, None, None]:
            marks = self._marks(request, stream, written)
            answer = Answer(self._model_name, stream.prepared.retrieved, request.wanted, marks)
            with shown, stream, reaching_the_caller(_DOING):
                for chunk in stream:
                    yield written(answer, delta=answer.add(chunk))

        return pieces()

    async def _apieces(self, request: Request, written: Callable[..., Response]) -> AsyncGenerator[Response, None]:
        with (shown := self._progress()) as progress:
            stream = await self._engine.astream(request.prompt, **_reporting(request.options, progress))

        async def pieces() -> AsyncGenerator[Response, None]:
            marks = self._marks(request, stream, written)
            answer = Answer(self._model_name, stream.prepared.retrieved, request.wanted, marks)
            with shown, reaching_the_caller(_DOING):
                async with stream:
                    async for chunk in stream:
                        yield written(answer, delta=answer.add(chunk))

        return pieces()


def _reporting(options: dict[str, Any], progress: OnProgress | None) -> dict[str, Any]:
    return options if progress is None else {"on_progress": progress, **options}
