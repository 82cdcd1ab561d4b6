"""`RapidModel`, the base of `RapidLLM` and `ChatRapid`: their settings, their models, and requests to the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.documents import BaseDocumentCompressor
from langchain_core.embeddings import Embeddings
from langchain_core.language_models.base import LangSmithParams
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, ValidationError

from langchain_rapid.deadline import Deadline
from langchain_rapid.errors import as_langchain_errors
from langchain_rapid.host_parts import embedder_of, reranker_of, retrieving, splitter_of
from langchain_rapid.responses import PROVIDER, Responses
from langchain_rapid.setting_names import structured_of
from langchain_rapid.settings_in_use import SettingsInUse
from langchain_rapid.structured_output import instruction_for
from langchain_rapid.template_capture import listen_to_templates
from rapid_integrations import Completion, CompletionChunk
from rapid_integrations.adapters.constructor_arguments import constructor_settings
from rapid_integrations.adapters.fields import RequestFields, engine_defaults
from rapid_integrations.adapters.thinking import Thinking, marks_of
from rapid_integrations.config import DEFAULT_EMBEDDER, explain_validation_error
from rapid_integrations.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid_integrations import CompletionStream, RapidEngine
    from rapid_integrations.adapters.progress_view import ProgressView
    from rapid_integrations.compression import ContextCompressor
    from rapid_integrations.engine.async_stream import AsyncCompletionStream
    from rapid_integrations.progress import OnProgress
    from rapid_integrations.prompt import PromptLike

_PARTS = ("embeddings", "text_splitter", "document_compressor", "embedding_cache")
# Settings of this package that are both fields and arguments of a call.
_OWN_OPTIONS = ("timeout", "show_schema", "return_retrieved", "show_progress")


@dataclass(frozen=True)
class Request:
    """A request to the engine.

    Attributes:
        prompt, options: arguments of `RapidEngine.stream`.
        deadline: the time limit.
        shown: the view that shows progress until the answer begins.
        with_texts: see `Responses`.
    """

    prompt: PromptLike
    options: dict[str, Any]
    deadline: Deadline
    shown: ProgressView | None
    with_texts: bool

    def responses(
        self, stream: CompletionStream | AsyncCompletionStream, engine: RapidEngine | None = None
    ) -> Responses:
        """Return the translator of the answer. With its engine, it tells thinking apart, unless the form is fixed."""
        marks = None
        if engine is not None and self.options["sampling"].structured is None:
            marks = marks_of(engine.vocabulary, stream.prepared.target)
        return Responses(stream.prepared.retrieved, self.with_texts, Thinking(marks))

    def watch(self, stream: CompletionStream) -> Iterator[CompletionChunk]:
        """Yield the answer's pieces until the deadline."""
        try:
            for chunk in self.deadline.watch(stream):
                self.done_reading()
                yield chunk
        finally:
            self.done_reading()

    async def awatch(self, stream: AsyncCompletionStream) -> AsyncIterator[CompletionChunk]:
        """Yield the answer's pieces until the deadline."""
        try:
            async for chunk in self.deadline.awatch(stream):
                self.done_reading()
                yield chunk
        finally:
            self.done_reading()

    def done_reading(self) -> None:
        """Remove the progress line when the prefill has ended or failed."""
        if self.shown is not None:
            self.shown.stop()


@dataclass(frozen=True)
class CallSettings:
    """The settings of a call, without its prompt.

    Attributes:
        engine: the options of `RapidEngine.stream`.
        show_schema: whether the prompt shows the schema of the answer to the model.
        deadline, shown, with_texts: see `Request`.
    """

    engine: dict[str, Any]
    deadline: Deadline
    shown: ProgressView | None
    with_texts: bool
    show_schema: bool

    def instruction(self, prompt: Iterable[str]) -> str | None:
        """Return the text that shows the answer's schema to the model; None if it is not needed."""
        structured = self.engine["sampling"].structured
        if not self.show_schema or structured is None or structured.json_schema is None:
            return None
        may_call = bool(self.engine.get("tools")) and self.engine.get("tool_choice") != "none"
        return instruction_for(structured.json_schema, prompt, tools=may_call)

    def request(self, prompt: PromptLike) -> Request:
        """Return the request for `prompt`."""
        return Request(prompt, self.engine, self.deadline, self.shown, self.with_texts)


class RapidModel(SettingsInUse):
    """The fields and the engine of a RAPID model.

    Models are given by name (`target`, or `model` with a string, and `drafter`), as objects (`model`, `tokenizer`,
    `drafter_model`), as a ready `engine`, or as a server (`base_url`). Every sampling and speculation setting is a
    field. It can also be given to a single call or bound: `llm.invoke(prompt, temperature=0.7, max_tokens=64)`. Unknown
    names are refused.

    The target's prompt is exactly what the chain built. In the drafter's prompt, retrieved chunks replace the context.
    They come from `retriever` if there is one. Otherwise, `text_splitter` cuts the context and `embeddings` scores the
    pieces. `document_compressor` then filters, reorders or rewrites the chunks.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    embeddings: Any = Field(
        default=DEFAULT_EMBEDDER,
        exclude=True,
        repr=False,
        description="scores the chunks of a context: an Embeddings, an Embedder, a packaged name, a folder "
        "or a hub name",
    )
    text_splitter: Any = Field(
        default=None,
        exclude=True,
        repr=False,
        description="a TextSplitter that cuts the context into chunks; None uses the engine's own chunker",
    )
    retriever: BaseRetriever | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="chooses which parts of the context the drafter reads, in place of embeddings",
    )
    document_compressor: BaseDocumentCompressor | None = Field(
        default=None, exclude=True, repr=False, description="reranks or filters the results of retriever or embeddings"
    )
    use_templates: bool = Field(
        default=True, description="takes context and question from the prompt template that the chain rendered"
    )
    timeout: float | None = Field(
        default=None, gt=0, description="seconds after which a request raises TimeoutError; None sets no limit"
    )
    max_retries: int | None = Field(
        default=None, ge=0, description="has no effect, because retries do not help a local model; see with_retry"
    )
    streaming: bool = Field(default=False, description="reports tokens to callbacks also during invoke")
    show_schema: bool = Field(
        default=True,
        description="appends the JSON schema of a structured answer to the question, unless the prompt already "
        "contains it",
    )
    return_retrieved: bool = Field(
        default=False,
        description="adds the texts of the chunks that the drafter read to an answer's metadata. Their positions and "
        "scores are always there",
    )
    show_progress: bool = Field(default=False, description="shows loading, embedding and prefill on standard error")

    def __init__(self, *unnamed: Any, **settings: Any) -> None:
        """Load the models; see the fields.

        Raises:
            ConfigurationError: a setting is unknown or has an invalid value.
            ModelLoadError: a model cannot be loaded or run.
        """
        settings = constructor_settings(type(self), settings, unnamed)
        if (engine := settings.get("engine")) is not None:
            settings = engine_defaults(engine) | settings
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(explain_validation_error(type(self), error)) from None
        with self._progress() as progress:
            self._open_engine(progress)
        self._settle_parts()
        self._when_arrived()

    @property
    def rapid_engine(self) -> RapidEngine:
        """The engine of this LLM."""
        return self._engine

    @property
    def model_name(self) -> str:
        """The target's name."""
        return self._engine.target.name

    @property
    def max_tokens(self) -> int:
        """`max_new_tokens` under LangChain's name. It can be assigned, too."""
        return self.max_new_tokens

    @max_tokens.setter
    def max_tokens(self, value: int) -> None:
        self.max_new_tokens = value

    def get_token_ids(self, text: str) -> list[int]:
        """Return the target's token ids of a text."""
        custom = getattr(self, "custom_get_token_ids", None)
        ids: list[int] = self._engine.vocabulary.encode(text) if custom is None else custom(text)
        return ids

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Everything that answers depend on: models, settings, and the parts that make the drafter's context."""
        settings = self.model_dump(include={*RequestFields.model_fields}, mode="json", warnings=False)
        return {
            **settings,
            "default_stop": settings["stop"],  # LangChain overwrites "stop" with the call's, or with None
            "model_name": self.model_name,
            "drafter_name": self._engine.drafter.name,
            "use_templates": self.use_templates,
            "show_schema": self.show_schema,
            "return_retrieved": self.return_retrieved,
            **self._identity_of_answers(),
        }

    def _parts_of_answers(self) -> dict[str, object]:
        return {
            "embeddings": self._key_of_embedder(self.embeddings),
            "text_splitter": self.text_splitter,
            "retriever": self.retriever,
            "document_compressor": self.document_compressor,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params: LangSmithParams = super()._get_ls_params(stop=stop, **kwargs)  # type: ignore[misc]
        params["ls_provider"] = PROVIDER
        params["ls_model_name"] = kwargs.get("model") or self.model_name
        if stop is None and self.stop:
            params["ls_stop"] = list(self.stop)
        return params

    def _settings(self, stop: list[str] | None, overrides: dict[str, Any]) -> CallSettings:
        """Return the settings of a call.

        Raises:
            ConfigurationError: an override is unknown or invalid, or names another model.
        """
        overrides = dict(overrides)
        overrides.pop("stream", None)  # LangChain uses it to choose between invoke and stream
        if (model := overrides.pop("model", None)) not in (None, self.model_name):
            raise ConfigurationError(
                f"model={model!r} for one call, but this is {self.model_name}, which is loaded: build a second "
                f"{type(self).__name__}, and choose between the two with configurable_alternatives"
            )
        if (wanted := overrides.pop("response_format", None)) is not None:
            overrides["structured"] = structured_of(wanted)
        if stop is not None:
            overrides["stop"] = stop
        own = {name: self._of_call(name, overrides) for name in _OWN_OPTIONS}
        shown = None
        if own["show_progress"]:
            from rapid_integrations.adapters.progress_view import ProgressView

            shown = ProgressView()
        options = self.request_options(overrides)
        options["compressor"] = self._compressor
        deadline = Deadline(own["timeout"])
        options["on_progress"] = deadline.reporting(options.get("on_progress") or shown)
        return CallSettings(options, deadline, shown, own["return_retrieved"], own["show_schema"])

    def _of_call(self, name: str, overrides: dict[str, Any]) -> Any:
        """Remove one of `_OWN_OPTIONS` from a call's arguments and return it. Without one, return the field's value."""
        given = overrides.pop(name, None)
        return getattr(self, name) if given is None else self._checked(name, given)

    def _progress(self) -> AbstractContextManager[OnProgress | None]:
        if not self.show_progress:
            return nullcontext()
        from rapid_integrations.adapters.progress_view import ProgressView

        return ProgressView()

    def _open(self, request: Request) -> CompletionStream:
        try:
            with as_langchain_errors():
                return self._engine.stream(request.prompt, **request.options)
        except BaseException:
            request.done_reading()
            raise

    async def _aopen(self, request: Request) -> AsyncCompletionStream:
        try:
            with as_langchain_errors():
                return await self._engine.astream(request.prompt, **request.options)
        except BaseException:
            request.done_reading()
            raise

    def _answer(self, request: Request) -> Completion:
        with self._open(request) as stream:
            return Completion.join(list(request.watch(stream)), stream.prepared.retrieved)

    async def _aanswer(self, request: Request) -> Completion:
        async with await self._aopen(request) as stream:
            chunks = [chunk async for chunk in request.awatch(stream)]
            return Completion.join(chunks, stream.prepared.retrieved)

    def _when_arrived(self) -> None:
        if self.use_templates:
            listen_to_templates()

    def _when_set(self, name: str) -> None:
        self._when_arrived()
        self._settle_parts()

    @property
    def _compressor(self) -> ContextCompressor:
        """The compressor. LLMs that share an engine and have the same parts share it, because it keeps embeddings."""
        parts = (self.embeddings, self.embedding_cache, self.text_splitter, self.retriever, self.document_compressor)
        own = sorted(self.given_names(_PARTS))
        return self._made_once(("langchain", ",".join(own), self.engine is None, *parts), self._make_compressor)

    def _make_compressor(self) -> ContextCompressor:
        from rapid_integrations.compression.default_compressor import DefaultCompressor

        engine = self._engine
        own = self.given_names(_PARTS)
        compressor = engine.compressor
        if own or (self.engine is None and self.base_url is None):  # otherwise the engine has a compressor of its own
            embeddings = self.embeddings
            compressor = DefaultCompressor(
                embedder_of(embeddings) if isinstance(embeddings, Embeddings) else embeddings,
                engine.vocabulary,
                self.embedding_cache,
                split=None if self.text_splitter is None else splitter_of(self.text_splitter),
                rerank=None if self.document_compressor is None else reranker_of(self.document_compressor),
            )
        if self.retriever is None:
            return compressor
        return retrieving(self.retriever, self.document_compressor, engine.vocabulary, compressor)
