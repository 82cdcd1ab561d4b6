"""`RapidLLM`: LlamaIndex's LLM class over a RAPID engine.

It translates arguments, prompts and answers; the engine decodes. Unlike other local LLM classes, it tells the engine
which part of a prompt is context and which is the question (`_get_messages`, `_get_prompt`), and its asynchronous
endpoints do not block the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import ChatMessage, LLMMetadata
from llama_index.core.llms.llm import default_completion_to_prompt
from llama_index.core.node_parser import NodeParser
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate

from llama_index_rapid.annotations import (
    AnnotatedText,
    Filled,
    Parts,
    annotate,
    annotated,
    annotation_of,
    fill,
    parts_of,
    prompt_of,
)
from llama_index_rapid.asked_for_json import asked_for_json, schema_of_parser
from llama_index_rapid.conversation_text import conversation_text
from llama_index_rapid.endpoints import Endpoints, Request
from llama_index_rapid.errors import reaching_the_caller
from llama_index_rapid.host_parts import (
    ReusingPipelineScores,
    embedder_of,
    reranker_of,
    retrieving,
    splitter_of,
)
from llama_index_rapid.messages import to_engine_messages
from llama_index_rapid.pipeline_scores import listen_to_retrievals
from llama_index_rapid.structured import StructuredPrediction
from llama_index_rapid.tokenizer import OwnTokenizer
from llama_index_rapid.tool_calling import ToolCalling, tool_choice_of
from llama_index_rapid.workers import refuse_ingestion_workers
from rapid_integrations.adapters.call_stack import callers
from rapid_integrations.adapters.constructor_arguments import constructor_settings
from rapid_integrations.adapters.fields import as_it_is, engine_defaults
from rapid_integrations.adapters.identity import models_of
from rapid_integrations.adapters.live_settings import LiveSettings
from rapid_integrations.config import DEFAULT_EMBEDDER, StructuredOutput, explain_validation_error
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import TemplateArguments

_FREE = ("auto", "none")  # tool choices that allow an answer in text

if TYPE_CHECKING:
    from rapid_integrations import PreparedPrompt, RapidEngine, ReadAhead
    from rapid_integrations.compression import ContextCompressor


class RapidLLM(LiveSettings, StructuredPrediction, ToolCalling, Endpoints):
    """Retrieval-augmented speculative decoding as an LLM of LlamaIndex.

    Models are given by name (`target`, `drafter`), as objects (`model`, `tokenizer`, `drafter_model`), as a ready
    `engine`, or as a server (`base_url`). Every sampling and speculation setting is a field. It can also be given to a
    single call: `llm.complete(prompt, temperature=0.7, max_new_tokens=64)`. Unknown names are refused.

    The target's prompt is exactly what the pipeline built. In the drafter's prompt, retrieved chunks replace the
    context. They come from `retriever` if there is one. Otherwise, the scores of the pipeline's own retrieval choose
    them, if there are any. Otherwise, `node_parser` cuts the context, `embed_model` scores the pieces, and
    `node_postprocessors` reorder and filter them.

    Threads and tasks may share one object. Answers carry usage and decoding statistics in `raw`. A changed setting
    (`llm.max_new_tokens = 600`) takes effect with the next call. Settings for loading models cannot be changed.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    context_window: int | None = Field(
        default=None,
        ge=64,
        description="number of tokens of the model's context window that pipelines may fill; None allows all",
    )
    embed_model: Any = Field(
        default=DEFAULT_EMBEDDER,
        exclude=True,
        description="scores the chunks of a context: a BaseEmbedding, an Embedder, a packaged name, a folder "
        "or a hub name",
    )
    node_parser: NodeParser | None = Field(
        default=None, exclude=True, description="cuts the context into chunks; None uses the engine's own chunker"
    )
    retriever: BaseRetriever | None = Field(
        default=None,
        exclude=True,
        description="chooses which parts of the context the drafter reads, in place of embed_model",
    )
    node_postprocessors: list[BaseNodePostprocessor] = Field(
        default_factory=list, exclude=True, description="reorder or filter the results of retriever or embed_model"
    )
    use_pipeline_scores: bool = Field(
        default=True, description="uses the scores of the pipeline's own retrieval, if there are any"
    )
    count_with_own_tokenizer: bool = Field(
        default=True,
        description="makes LlamaIndex count tokens with the target's tokenizer when it packs prompts, unless you have "
        "set a global tokenizer",
    )
    show_progress: bool = Field(default=False, description="shows loading, embedding and prefill on standard error")

    @field_validator("embed_model")
    @classmethod
    def _it_can_embed(cls, value: Any) -> Any:
        if not isinstance(value, (BaseEmbedding, str, Path)) and not callable(getattr(value, "embed_query", None)):
            raise ValueError("give a BaseEmbedding, an Embedder, or the name or folder of a model")
        return value

    def __init__(self, *unnamed: Any, **settings: Any) -> None:
        """Load the models; see the fields.

        Raises:
            ConfigurationError: a setting is unknown or has an invalid value.
            ModelLoadError: a model cannot be loaded or run.
        """
        settings = constructor_settings(type(self), settings, unnamed)
        if isinstance(wrapper := settings.get("query_wrapper_prompt"), str):  # HuggingFaceLM accepts that, too
            settings["query_wrapper_prompt"] = PromptTemplate(wrapper)
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

    @classmethod
    def class_name(cls) -> str:
        """Name for serialisation."""
        return "RapidLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """The metadata of the model with the present settings.

        The context window is reduced by the chat template's own tokens. A caller that reads this is about to count
        tokens, so it also sets the global tokenizer (see `llama_index_rapid.tokenizer`).
        """
        if self.count_with_own_tokenizer:
            self._tokenizer.use_for_counting()
        vocabulary, target = self._engine.vocabulary, self._engine.target
        window = min(target.context_window, self.context_window or target.context_window)
        return LLMMetadata(
            context_window=window - vocabulary.tokens_of_template(self._arguments_of_template),
            num_output=self.max_new_tokens,
            is_chat_model=self._is_chat_model,
            is_function_calling_model=self._engine.supports_tools,
            model_name=target.name,
        )

    @property
    def rapid_engine(self) -> RapidEngine:
        """The engine of this LLM."""
        return self._engine

    def explain(self, prompt: str | BasePromptTemplate | Sequence[ChatMessage], **prompt_args: Any) -> PreparedPrompt:
        """Return the prompts that target and drafter would read. Only the embedder runs.

        Args:
            prompt: as for `complete`, `predict` (with `prompt_args`) or `chat`.
            prompt_args: the template's variables.
        """
        request = self._request_of(prompt, prompt_args)
        return self._engine.explain(request.prompt, **_settings_of_prompt(request))

    def read_ahead(
        self, template: BasePromptTemplate, question: str, *, on_progress: OnProgress | None = None, **prompt_args: Any
    ) -> ReadAhead:
        """Prefill what the prompts of all questions begin with; see `RapidEngine.read`.

        Args:
            template: the template of the later prompts. Its documents come before its question.
            question: the name of the question's variable ("query_str").
            on_progress: see `RapidEngine.read`.
            prompt_args: the template's other variables, with the values of the later prompts.
        """
        options = self._reading(template, question, prompt_args)
        return self._engine.read((), on_progress=on_progress, **options)

    async def aread_ahead(
        self, template: BasePromptTemplate, question: str, *, on_progress: OnProgress | None = None, **prompt_args: Any
    ) -> ReadAhead:
        """Do what `read_ahead` does without blocking the event loop."""
        options = self._reading(template, question, prompt_args)
        return await self._engine.aread((), on_progress=on_progress, **options)

    def _reading(self, template: BasePromptTemplate, question: str, prompt_args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of `RapidEngine.read`."""

        def request(asked: str) -> Request:
            return self._request_of(template, {**prompt_args, question: asked})

        settings = _settings_of_prompt(request("?"))
        return {"prompt": lambda _, asked: request(asked).prompt, **settings}

    def _request_of(
        self, prompt: str | BasePromptTemplate | Sequence[ChatMessage], prompt_args: Mapping[str, Any]
    ) -> Request:
        given: str | Sequence[ChatMessage]
        if not isinstance(prompt, BasePromptTemplate):
            given = prompt
        elif self._is_chat_model:
            given = self._get_messages(prompt, **prompt_args)
        else:
            given = self._get_prompt(prompt, **prompt_args)
        raw = isinstance(given, str) and isinstance(prompt, BasePromptTemplate)
        return self._request(given, {}, raw=raw)

    # --- prompts of the pipeline ------------------------------------------------------------------------------------

    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        with reaching_the_caller("a function of the prompt template"):
            filled = fill(prompt, prompt_args, self)
            messages = super()._get_messages(filled.template, **filled.values)

            def render(values: Mapping[str, Any]) -> list[str]:
                rendered = super(RapidLLM, self)._get_messages(filled.template, **values)
                return [message.content or "" for message in rendered]

            parts = parts_of(filled, [message.content or "" for message in messages], render)
            known = annotate(messages, parts)
            if known and (schema := self._schema_asked_for(filled)) is not None:
                known[-1] = annotated(known[-1], replace(annotation_of(known[-1]), json_schema=schema))
            return known

    def _get_prompt(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        with reaching_the_caller("a function of the prompt template"):
            filled = fill(prompt, prompt_args, self)
            text = super()._get_prompt(filled.template, **filled.values)

            def render(values: Mapping[str, Any]) -> list[str]:
                return [super(RapidLLM, self)._get_prompt(filled.template, **values)]

            (parts,) = parts_of(filled, [text], render)
            return AnnotatedText(text, replace(parts, json_schema=self._schema_asked_for(filled)))

    def _schema_asked_for(self, filled: Filled) -> dict[str, Any] | None:
        return schema_of_parser(filled.template.output_parser or self.output_parser, filled.values)

    def _written_out(self, prompt: str, formatted: bool) -> str:
        """Return the prompt, rewritten by the user's own `completion_to_prompt` if there is one."""
        write = self.completion_to_prompt
        if formatted or write is None or write is default_completion_to_prompt:
            return prompt
        written: str = write(prompt)
        return AnnotatedText(written, prompt.parts) if isinstance(prompt, AnnotatedText) else written

    def _request(self, prompt: str | Sequence[ChatMessage], overrides: dict[str, Any], raw: bool = False) -> Request:
        """Return the engine's request.

        Args:
            prompt: a text or messages, annotated or not.
            overrides: settings of this call.
            raw: whether the model reads a text unchanged, without its chat template.
        """
        if "tool_choice" in overrides:
            overrides = {**overrides, "tool_choice": tool_choice_of(overrides["tool_choice"])}
        prompt, schema = asked_for_json(prompt)
        options = self.request_options(overrides)
        options["compressor"] = self._compressor
        wanted = "a tool call" if options.get("tools") and options.get("tool_choice", "auto") not in _FREE else None
        if schema is not None and options["sampling"].structured is None and not options.get("tools"):
            wanted = str(schema.get("title") or "an object")
            options["sampling"] = options["sampling"].model_copy(
                update={"structured": StructuredOutput(json_schema=schema)}
            )
        if isinstance(prompt, str):
            written_by_user = self.completion_to_prompt is not default_completion_to_prompt
            if raw or written_by_user:
                as_it_is(options, overrides)
            parts = prompt.parts if isinstance(prompt, AnnotatedText) else Parts()
            return Request(prompt_of(prompt, parts), options, wanted)
        write = self.messages_to_prompt
        if write is not None and write is not generic_messages_to_prompt:
            as_it_is(options, overrides)
            return Request(conversation_text(write, prompt), options, wanted)
        if not self._is_chat_model:  # a base model reads a conversation as text
            return Request(conversation_text(generic_messages_to_prompt, prompt), options, wanted)
        return Request(to_engine_messages(prompt), options, wanted)

    # --- sharing, pickling and caching (see `HoldsEngine`) ----------------------------------------------------------

    def _parts_of_answers(self) -> dict[str, object]:
        return {
            "embed_model": self._key_of_embedder(self.embed_model),
            "node_parser": self.node_parser,
            "retriever": self.retriever,
            "node_postprocessors": self.node_postprocessors,
            "completion_to_prompt": self.completion_to_prompt,
            "messages_to_prompt": self.messages_to_prompt,
            "output_parser": self.output_parser,
        }

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Return everything that answers depend on. An IngestionPipeline's cache uses it as a key.

        Models that were given as objects appear with their names. "identity" has the fingerprints of all models, and
        the host's parts.
        """
        data: dict[str, Any] = handler(self)
        data["class_name"] = self.class_name()
        if self.engine is not None or self.model is not None or self.base_url is not None:
            names = models_of(self._engine)["models"]
            data.update({name: names.get(name) for name in ("target", "drafter", "draft_lm")})
        data["identity"] = self._identity_of_answers()
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Build an LLM from a result of `to_dict` and further arguments."""
        return super().from_dict({name: value for name, value in data.items() if name != "identity"}, **kwargs)

    def _when_opened(self, engine: RapidEngine) -> None:
        if self.count_with_own_tokenizer:
            self._tokenizer.use_for_counting()

    @property
    def _tokenizer(self) -> OwnTokenizer:
        engine = self._engine
        return self._made_once(
            ("llama_index", "tokenizer"), lambda: OwnTokenizer(engine.vocabulary.encode, engine.target.name)
        )

    def _when_arrived(self) -> None:
        if self.use_pipeline_scores:
            listen_to_retrievals()

    def _when_set(self, name: str) -> None:
        self._when_arrived()
        self._settle_parts()

    def _before_loading_here(self) -> None:
        refuse_ingestion_workers()

    def _is_only_tried(self) -> bool:
        # `BaseComponent.__getstate__` first pickles each part separately and drops those that fail. An extractor over
        # an `engine=` would then answer with LlamaIndex's default LLM in the other process.
        trying = ("llama_index.core.schema", "__getstate__")
        return any((module, frame.f_code.co_name) == trying for module, frame in callers())

    def _left_behind(self) -> tuple[str, ...]:
        return ("callback_manager",)

    # --- setting up -------------------------------------------------------------------------------------------------

    @property
    def _arguments_of_template(self) -> TemplateArguments:
        return self._engine.chat_template_kwargs.overridden(self.chat_template_kwargs)

    @property
    def _model_name(self) -> str:
        return self._engine.target.name

    @property
    def _is_chat_model(self) -> bool:
        return self._engine.vocabulary.chat_template is not None

    @property
    def _compressor(self) -> ContextCompressor:
        """The compressor. LLMs that share an engine and have the same parts share it, because it keeps embeddings."""
        parts = (self.embed_model, self.embedding_cache, self.node_parser, self.retriever, *self.node_postprocessors)
        own = sorted(self.given_names(("embed_model", "node_parser", "node_postprocessors", "embedding_cache")))
        key = ("llama_index", self.use_pipeline_scores, ",".join(own), self.engine is None, *parts)
        return self._made_once(key, self._make_compressor)

    def _make_compressor(self) -> ContextCompressor:
        from rapid_integrations.compression.default_compressor import DefaultCompressor

        engine = self._engine
        own = self.given_names(("embed_model", "node_parser", "node_postprocessors", "embedding_cache"))
        compressor = engine.compressor
        if own or (self.engine is None and self.base_url is None):  # otherwise the engine has a compressor of its own
            embedder: Any = self.embed_model
            if isinstance(embedder, BaseEmbedding):
                embedder = embedder_of(embedder)
            compressor = DefaultCompressor(
                embedder,
                engine.vocabulary,
                self.embedding_cache,
                split=None if self.node_parser is None else splitter_of(self.node_parser),
                rerank=reranker_of(tuple(self.node_postprocessors)) if self.node_postprocessors else None,
            )
        if self.retriever is not None:
            return retrieving(self.retriever, tuple(self.node_postprocessors), engine.vocabulary, compressor)
        return ReusingPipelineScores(engine.vocabulary, compressor) if self.use_pipeline_scores else compressor

    def _progress(self) -> AbstractContextManager[OnProgress | None]:
        """Return a context manager that shows progress. A stream enters it twice: to open, and to read."""
        if not self.show_progress:
            return nullcontext()
        from rapid_integrations.adapters.progress_view import ProgressView

        return ProgressView()


def _settings_of_prompt(request: Request) -> dict[str, Any]:
    """Return the settings of a request that the engine's prompts depend on."""
    wanted = ("compression", "compressor", "apply_chat_template", "chat_template_kwargs")
    return {name: request.options[name] for name in wanted if name in request.options}
