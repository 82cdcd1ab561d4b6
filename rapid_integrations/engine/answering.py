"""What an engine can be asked: to answer a prompt, to read documents ahead, to show or count what it would read.

`AnsweringEngine.stream` is the central call. Models and caches belong to its subclasses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

from rapid_integrations.compression import ContextCompressor
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig, require_known
from rapid_integrations.engine.async_stream import AsyncCompletionStream, prepared_in_thread
from rapid_integrations.engine.forked import computes
from rapid_integrations.engine.life import ClosableEngine
from rapid_integrations.engine.prepare import Preparing
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.engine.read_ahead import DocumentsLike, PromptOf, Reading
from rapid_integrations.engine.request import Asked, ToolDeclarations
from rapid_integrations.engine.stream import CompletionStream
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.outputs import Completion, ReadAhead
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.prompt import NO_ARGUMENTS, PromptLike, TemplateArguments
from rapid_integrations.trace.tracer import CANDIDATES


class AnsweringEngine(ClosableEngine):
    """The calls of an engine that take a prompt or documents.

    Attributes:
        sampling, speculation, compression: the settings of a request that brings none.
        compressor: makes the drafter's context if a request brings none.
    """

    sampling: SamplingParams
    speculation: SpeculationConfig
    compression: CompressionConfig
    compressor: ContextCompressor
    vocabulary: Vocabulary
    _preparing: Preparing
    _template_arguments: TemplateArguments

    @property
    def chat_template_kwargs(self) -> TemplateArguments:
        """The arguments of the chat template that a request does not name itself."""
        return self._template_arguments

    @computes
    def explain(
        self,
        prompt: PromptLike,
        *,
        compression: CompressionConfig | None = None,
        compressor: ContextCompressor | None = None,
        tools: ToolDeclarations | None = None,
        tool_choice: str = "auto",
        parallel_tool_calls: bool = True,
        apply_chat_template: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> PreparedPrompt:
        """Return the prompts that target and drafter would read. Only the embedder runs."""
        self.require_open()
        asked = Asked(
            prompt=prompt,
            sampling=self.sampling,
            speculation=self.speculation,
            compression=compression or self.compression,
            compressor=compressor or self.compressor,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            apply_chat_template=apply_chat_template,
            report=on_progress or ignore_progress,
            chat_template_kwargs=self._arguments(chat_template_kwargs, apply_chat_template),
        )
        return self._explained(asked)

    def count_tokens(
        self,
        prompt: PromptLike,
        *,
        tools: ToolDeclarations | None = None,
        apply_chat_template: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> int:
        """Return the number of tokens that the target would read, including those of its chat template."""
        self.require_open()
        arguments = self._arguments(chat_template_kwargs, apply_chat_template)
        return self._preparing.count_tokens(prompt, tools, apply_chat_template, arguments)

    def read(
        self,
        documents: DocumentsLike,
        *,
        prompt: PromptOf | None = None,
        compression: CompressionConfig | None = None,
        compressor: ContextCompressor | None = None,
        tools: ToolDeclarations | None = None,
        apply_chat_template: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> ReadAhead:
        """Read documents before the first question about them, which then starts as soon as a second one does.

        The target prefills what all questions about the documents begin with, and the compressor indexes them. The
        keys and values go to the prefix cache and to `prefix_cache_dir`. The call returns when they are there. Prompts
        of questions that are asked meanwhile are read first. A question about the same documents goes on behind what
        has been read of them.

        Args:
            documents: a text, a `Document`, or several of them, in the order of the prompt.
            prompt: makes the later prompts from the documents' texts and a question. None is the form of `rapid ask`:
                `Prompt.from_context(texts, question)`, with `names` if several `Document`s are given.
            compression, compressor, tools, apply_chat_template, chat_template_kwargs: those of the later questions; see
                `stream`. Arguments that change only the end of a prompt may differ.
            on_progress: called with (stage, done, total) while indexing, waiting for memory and reading.

        Raises:
            PromptError: a document is empty, or the prompt has its question before the documents.
            ConfigurationError: the engine keeps no caches.
            ContextOverflowError: the documents do not fit into the context window.
            OutOfMemoryError, EngineClosedError, ForkedProcessError: see `stream`.
        """
        return self._reading(
            documents,
            prompt=prompt,
            compression=compression,
            compressor=compressor,
            tools=tools,
            apply_chat_template=apply_chat_template,
            chat_template_kwargs=chat_template_kwargs,
            on_progress=on_progress,
        ).result()

    async def aread(self, documents: DocumentsLike, **options: Any) -> ReadAhead:
        """Do what `read` does without blocking the event loop. Cancelling the task stops the reading."""
        require_known(type(self).read, options, owner=type(self))
        reading = await prepared_in_thread(self, partial(self._reading, documents), options)
        return await reading.aresult()

    def generate(self, prompt: PromptLike, **options: Any) -> Completion:
        """Return the whole answer to `prompt`. Takes the arguments of `stream` and joins its pieces."""
        require_known(type(self).stream, options, owner=type(self))
        with self.stream(prompt, **options) as stream:
            return Completion.join(list(stream), stream.prepared.retrieved, stream.trace)

    @computes
    def stream(
        self,
        prompt: PromptLike,
        *,
        sampling: SamplingParams | None = None,
        speculation: SpeculationConfig | None = None,
        compression: CompressionConfig | None = None,
        compressor: ContextCompressor | None = None,
        tools: ToolDeclarations | None = None,
        tool_choice: str = "auto",
        parallel_tool_calls: bool = True,
        apply_chat_template: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        trace: bool = False,
        trace_candidates: int = CANDIDATES,
        on_progress: OnProgress | None = None,
    ) -> CompletionStream:
        """Answer `prompt` piece by piece.

        Errors of the request are raised here, before the first piece.

        Args:
            prompt: a string, chat messages, or a `Prompt`. Assistant messages may carry "tool_calls" (their content
                may be None then), and "tool" messages their results, as in OpenAI's API. "reasoning_content" holds an
                assistant message's thinking, for templates that show it.
            sampling, speculation, compression, compressor: used instead of the engine's defaults.
            tools: declarations of the tools that the model may call, each {"type": "function", "function": {"name",
                "description", "parameters"}}.
            tool_choice: "auto" lets the model decide, "required" enforces at least one call, a tool's name enforces
                a call of that tool, and "none" hides the tools from the model.
            parallel_tool_calls: whether one answer may contain several calls.
            apply_chat_template: None wraps a string or `Prompt` as a user message if the model has a template; False
                passes it to the model unchanged.
            chat_template_kwargs: arguments of the chat template, such as {"enable_thinking": False}: names that it
                reads, and JSON values. They are put over the engine's own.
            trace: record the source of each token (`CompletionStream.trace`, `Completion.trace`; see
                `rapid_integrations.trace`). The answer stays the same; decoding takes a little longer.
            trace_candidates: number of the most probable tokens of each distribution that the trace holds.
            on_progress: called with (stage, done, total) while embedding, waiting for memory and prefilling.

        Raises:
            PromptError, ConfigurationError, ContextOverflowError: see `rapid_integrations.errors`.
            OutOfMemoryError: during retrieval, or from the stream. The memory of the request has been freed by then.
            MissingExtraError: a package is missing that structured output or a required call needs.
            EngineClosedError: the engine has been closed. The stream raises it, too.
            ForkedProcessError: this process was forked from the one that built the engine.
        """
        self.require_open()
        asked = Asked(
            prompt=prompt,
            sampling=sampling or self.sampling,
            speculation=speculation or self.speculation,
            compression=compression or self.compression,
            compressor=compressor or self.compressor,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            apply_chat_template=apply_chat_template,
            report=on_progress or ignore_progress,
            chat_template_kwargs=self._arguments(chat_template_kwargs, apply_chat_template),
        )
        if trace and (
            not isinstance(trace_candidates, int) or isinstance(trace_candidates, bool) or trace_candidates < 1
        ):
            raise ConfigurationError(
                f"trace_candidates={trace_candidates!r:.80}: give a number of tokens from 1 on", code="wrong_value"
            )
        return self._answered(asked, trace_candidates if trace else None)

    async def agenerate(self, prompt: PromptLike, **options: Any) -> Completion:
        """Return the whole answer to `prompt` without blocking the event loop. Takes the arguments of `stream`."""
        async with await self.astream(prompt, **options) as stream:
            return Completion.join([chunk async for chunk in stream], stream.prepared.retrieved, stream.trace)

    async def astream(self, prompt: PromptLike, **options: Any) -> AsyncCompletionStream:
        """Answer `prompt` piece by piece without blocking the event loop. Arguments and errors are as for `stream`."""
        require_known(type(self).stream, options, owner=type(self))
        return await AsyncCompletionStream.start(self, prompt, options)

    def _arguments(self, given: Mapping[str, Any] | None, apply_chat_template: bool | None) -> TemplateArguments:
        """Return the arguments of the chat template for a request: the engine's, with the request's in their place.

        Raises:
            ConfigurationError: the template does not read one, or the request uses no template.
        """
        if apply_chat_template is False:
            if given:
                raise ConfigurationError(
                    "apply_chat_template=False with chat_template_kwargs: only the chat template reads them. Leave out "
                    "one of the two",
                    code="no_chat_template",
                )
            return NO_ARGUMENTS
        arguments = self.chat_template_kwargs.overridden(given)
        if given:
            self.vocabulary.require_arguments(arguments)
        return arguments

    def _explained(self, asked: Asked) -> PreparedPrompt:
        return self._preparing.prompts(asked)

    @abstractmethod
    def _answered(self, asked: Asked, trace_candidates: int | None) -> CompletionStream:
        """Return the answer to a request. None records no trace."""

    @abstractmethod
    def _reading(
        self,
        documents: DocumentsLike,
        *,
        prompt: PromptOf | None = None,
        compression: CompressionConfig | None = None,
        compressor: ContextCompressor | None = None,
        tools: ToolDeclarations | None = None,
        apply_chat_template: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reading:
        """Return the reading of documents, which has not begun."""
