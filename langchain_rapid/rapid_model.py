"""What `RapidLLM` and `ChatRapid` share: settings, models, and the way of a request to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.documents import BaseDocumentCompressor
from langchain_core.embeddings import Embeddings
from langchain_core.language_models.base import LangSmithParams
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, SecretStr, ValidationError

from langchain_rapid.deadline import Deadline
from langchain_rapid.errors import as_langchain_errors
from langchain_rapid.host_parts import embedder_of, reranker_of, retrieving, splitter_of
from langchain_rapid.setting_names import structured_of
from langchain_rapid.template_capture import listen_to_templates
from rapid_integrations import Completion
from rapid_integrations.adapter_fields import RequestFields, engine_defaults
from rapid_integrations.config import explain_validation_error
from rapid_integrations.constructor_arguments import constructor_settings
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.held_engine import HoldsEngine
from rapid_integrations.identity import key_of_embedder

if TYPE_CHECKING:
    from rapid_integrations import CompletionStream, RapidEngine
    from rapid_integrations.async_stream import AsyncCompletionStream
    from rapid_integrations.compression import ContextCompressor
    from rapid_integrations.prompt import PromptLike

_PARTS = ("embeddings", "text_splitter", "document_compressor", "embedding_cache")


@dataclass(frozen=True)
class Request:
    """A prompt and the engine's options for it."""

    prompt: PromptLike
    options: dict[str, Any]
    deadline: Deadline


class RapidModel(HoldsEngine, RequestFields):
    """The fields and the engine of a RAPID model.

    Models are given by name (`target`, or `model` with a string, and `drafter`), as objects (`model`, `tokenizer`,
    `drafter_model`), or as a ready `engine`. Every sampling and speculation setting is a field, and every one may be
    given to a single call or bound: `llm.invoke(prompt, temperature=0.7, max_tokens=64)`. Unknown names are refused.

    The target's prompt is exactly what the chain built. The drafter's is the same with the context replaced by what
    was retrieved from it: by `retriever`, else by cutting it (`text_splitter`) and embedding it (`embeddings`);
    `document_compressor` filters, reorders or rewrites what was found.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    embeddings: Any = Field(
        default="all-minilm-l6-v2",
        exclude=True,
        repr=False,
        description="scores the chunks of a context: an Embeddings, an Embedder, a packaged name, a folder "
        "or a hub name",
    )
    text_splitter: Any = Field(
        default=None,
        exclude=True,
        repr=False,
        description="a TextSplitter that cuts the context into chunks; None: the engine's own chunker",
    )
    retriever: BaseRetriever | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="chooses what the drafter reads of the context, in place of embeddings",
    )
    document_compressor: BaseDocumentCompressor | None = Field(
        default=None, exclude=True, repr=False, description="reranks or filters what retriever or embeddings found"
    )
    use_templates: bool = Field(
        default=True, description="takes context and question from the prompt template that the chain rendered"
    )
    timeout: float | None = Field(
        default=None, gt=0, description="seconds that a request may take; TimeoutError after them, None: any time"
    )
    max_retries: int | None = Field(
        default=None, ge=0, description="without effect: a local model fails for good or not at all; see with_retry"
    )
    api_key: SecretStr | None = Field(
        default=None, exclude=True, repr=False, description="without effect: a local model asks for none"
    )
    streaming: bool = Field(default=False, description="reports tokens to callbacks in invoke, too")

    def __init__(self, *unnamed: Any, **settings: Any) -> None:
        """Load the models; see the fields.

        Raises:
            ConfigurationError: an unknown setting, or a value that cannot work.
            ModelLoadError: a model cannot be loaded or run.
        """
        settings = constructor_settings(type(self), settings, unnamed)
        if (engine := settings.get("engine")) is not None:
            settings = engine_defaults(engine) | settings
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(explain_validation_error(type(self), error)) from None
        self._open_engine(None)
        _ = self._compressor  # what is wrong with its parts is said now
        self._when_arrived()

    def model_post_init(self, context: Any, /) -> None:
        """Pass on to LangChain's own (pydantic would put its own for private attributes in its place)."""
        super().model_post_init(context)

    @property
    def rapid_engine(self) -> RapidEngine:
        """The engine behind it."""
        return self._engine

    @property
    def model_name(self) -> str:
        """The target's name."""
        return self._engine.target.name

    @property
    def max_tokens(self) -> int:
        """`max_new_tokens` under LangChain's name."""
        return self.max_new_tokens

    def get_token_ids(self, text: str) -> list[int]:
        """Return the target's token ids of a text."""
        custom = getattr(self, "custom_get_token_ids", None)
        ids: list[int] = self._engine.vocabulary.encode(text) if custom is None else custom(text)
        return ids

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """Everything that an answer depends on: models, settings, and the parts that make the drafter's context."""
        settings = self.model_dump(include={*RequestFields.model_fields}, mode="json", warnings=False)
        return {
            **settings,
            "default_stop": settings["stop"],  # LangChain writes the call's over "stop", and None where it has none
            "model_name": self.model_name,
            "drafter_name": self._engine.drafter.name,
            "use_templates": self.use_templates,
            **self._identity_of_answers(),
        }

    def _parts_of_answers(self) -> dict[str, object]:
        return {
            "embeddings": key_of_embedder(self.embeddings),
            "text_splitter": self.text_splitter,
            "retriever": self.retriever,
            "document_compressor": self.document_compressor,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params: LangSmithParams = super()._get_ls_params(stop=stop, **kwargs)  # type: ignore[misc]
        params["ls_provider"] = "rapid"
        params["ls_model_name"] = kwargs.get("model") or self.model_name
        if stop is None and self.stop:
            params["ls_stop"] = list(self.stop)
        return params

    def _options(self, stop: list[str] | None, overrides: dict[str, Any]) -> tuple[dict[str, Any], Deadline]:
        """Return the engine's options for a call with settings of its own.

        Raises:
            ConfigurationError: an override that is no setting, or names another model.
        """
        overrides = dict(overrides)
        overrides.pop("stream", None)  # LangChain's own, for choosing between invoke and stream
        if (model := overrides.pop("model", None)) not in (None, self.model_name):
            raise ConfigurationError(
                f"model={model!r} for one call, but this is {self.model_name}, which is loaded: build a second "
                f"{type(self).__name__}, and choose between the two with configurable_alternatives"
            )
        if (wanted := overrides.pop("response_format", None)) is not None:
            overrides["structured"] = structured_of(wanted)
        if stop is not None:
            overrides["stop"] = stop
        deadline = Deadline(overrides.pop("timeout", self.timeout))
        options = self.request_options(overrides)
        options["compressor"] = self._compressor
        options["on_progress"] = deadline.reporting(options.get("on_progress"))
        return options, deadline

    def _open(self, request: Request) -> CompletionStream:
        with as_langchain_errors():
            return self._engine.stream(request.prompt, **request.options)

    async def _aopen(self, request: Request) -> AsyncCompletionStream:
        with as_langchain_errors():
            return await self._engine.astream(request.prompt, **request.options)

    def _answer(self, request: Request) -> Completion:
        with self._open(request) as stream:
            return Completion.join(list(request.deadline.watch(stream)), stream.prepared.retrieved)

    async def _aanswer(self, request: Request) -> Completion:
        async with await self._aopen(request) as stream:
            chunks = [chunk async for chunk in request.deadline.awatch(stream)]
            return Completion.join(chunks, stream.prepared.retrieved)

    def _when_arrived(self) -> None:
        if self.use_templates:
            listen_to_templates()

    @property
    def _compressor(self) -> ContextCompressor:
        """Made once for the same parts, whoever of the sharers of the engine asks: it holds embedded documents."""
        parts = (self.embeddings, self.embedding_cache, self.text_splitter, self.retriever, self.document_compressor)
        own = sorted(self.given_names(_PARTS))
        return self._made_once(("langchain", ",".join(own), self.engine is None, *parts), self._make_compressor)

    def _make_compressor(self) -> ContextCompressor:
        from rapid_integrations.default_compressor import DefaultCompressor

        engine = self._engine
        own = self.given_names(_PARTS)
        compressor = engine.compressor
        if own or self.engine is None:
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
