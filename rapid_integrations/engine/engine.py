"""`RapidEngine` turns a prompt into a stream of text.

    prompt -> split -> compress -> prefill target and drafter -> { propose -> pass -> accept -> commit } -> stream

The file follows that order. `RapidEngine.stream` is its table of contents.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time
from functools import partial
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, Self

import torch

from rapid_integrations.cache import distinct_bytes
from rapid_integrations.cache.kv_cache import allocated_tokens
from rapid_integrations.cache.memory_budget import kv_budget, memory_budget
from rapid_integrations.cache.prefix_cache import PrefixCache
from rapid_integrations.cache.prefix_store import PrefixStore
from rapid_integrations.compression import ContextCompressor, Embedder, Rerank
from rapid_integrations.compression.default_compressor import EMBEDDINGS, DefaultCompressor
from rapid_integrations.compression.sources import RecentSources
from rapid_integrations.config import (
    DEFAULT_EMBEDDER,
    DEFAULT_TARGET,
    CompressionConfig,
    KVDtype,
    Quantization,
    SamplingParams,
    SpeculationConfig,
    require_known,
)
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.prefixes import Prefixes, RequestReaders
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.engine.admission import Admission
from rapid_integrations.engine.async_stream import AsyncCompletionStream, in_thread, prepared_in_thread
from rapid_integrations.engine.drafter_alone import by_drafter_alone, comes_first, fits_beside
from rapid_integrations.engine.forked import computes
from rapid_integrations.engine.job import Job
from rapid_integrations.engine.life import EngineLife
from rapid_integrations.engine.loaded_models import (
    DrafterService,
    EngineModels,
    loaded_models,
    require_local,
    require_nothing_to_load,
    require_objects,
    require_one_vocabulary,
    wrapped_models,
)
from rapid_integrations.engine.prepare import Preparing
from rapid_integrations.engine.prepared_prompt import PreparedPrompt, about
from rapid_integrations.engine.read_ahead import DocumentsLike, PromptOf, Reading, prompts_about
from rapid_integrations.engine.request import Asked, Request, ToolDeclarations
from rapid_integrations.engine.run import Run
from rapid_integrations.engine.stream import CompletionStream
from rapid_integrations.engine.worker import Worker
from rapid_integrations.errors import ConfigurationError, EngineClosedError, SharedResource, shown
from rapid_integrations.models.causal_lm import CausalLM, cache_bytes
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.outputs import Completion, ReadAhead
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.prompt import PromptLike
from rapid_integrations.proposers.heads.loading import load_head
from rapid_integrations.trace.tracer import CANDIDATES

__all__ = ["DEFAULT_TARGET", "CompletionStream", "PreparedPrompt", "RapidEngine", "ToolDeclarations"]

# `close` deletes these attributes.
_FREED = ("target", "drafter", "draft_lm", "draft_head", "more_drafters", "compressor", "parts")


class RapidEngine(SharedResource):
    """Answers prompts with a target that reads everything and a drafter that reads the retrieved chunks.

    Several threads and tasks may share an engine: their requests run together, and share forward passes. Close the
    engine, or leave its `with` block, to free the models. A copy of an engine is the engine itself. It cannot be
    pickled, nor used in a forked child.

    Args:
        target: the main model. It reads the whole prompt and verifies every token of the answer.
        drafter: another model with the same vocabulary; None drafts with the target itself (self-speculation). A
            `RemoteDrafter` is a model on another machine.
        draft_lm: a model with the same vocabulary that only proposes (proposer "draft_lm" or "hybrid"). It reads the
            drafter's prompt, and the drafter scores its drafts. It pays if the drafter is large.
        draft_head: the folder or hub name of a trained head, which proposes from the target's hidden states (proposer
            "draft_head", "draft_head_tree" or "hybrid"). For layers that ship in the target's checkpoint it is the
            target's own folder.
        more_drafters: further models with the same vocabulary that read the drafter's prompt. q is then the weighted
            mean of all drafters (`SpeculationConfig.drafter_weights`).
        compressor: makes the drafter's context; None builds one from `embedder` and `reranker`.
        embedder: an `Embedder`, a packaged name, a folder or a hub name. It is loaded when it is first needed.
        reranker: reorders the best chunks before the selection: a function (`compression.Rerank`), or the folder or
            hub name of a cross-encoder. None uses no reranker.
        embedding_cache: a file that keeps embeddings between runs. None takes "embeddings.sqlite" in
            `prefix_cache_dir`, and memory without such a folder.
        sampling, speculation, compression: defaults for its requests.
        kv_cache_bytes: memory for the KV caches of running requests. Further requests wait until there is room. "auto"
            takes half of the memory that is free now on the models' device.
        prefix_cache_bytes: memory for the KV caches of finished requests. If a prompt starts with the same tokens as an
            earlier one, only the rest is prefilled. "auto" takes a quarter of the memory that is free now on the
            models' device, on a GPU three eighths; 0 keeps nothing.
        prefix_cache_dir: a folder that also keeps these caches between runs, written in the background; None keeps
            none.
        prefix_cache_dir_bytes: maximum size of its files. "auto" is a quarter of the free space there plus the size of
            the present files.
        template_date: the day that chat templates such as Llama 3.1's write at the start of a prompt; None takes the
            day on which the model was loaded. The caches in `prefix_cache_dir` only fit prompts with the same day, so
            set it there.

    Raises:
        VocabularyMismatchError: the drafter's tokenizer differs from the target's.
    """

    _elsewhere = (
        "call RapidEngine.from_pretrained with the same arguments. RapidLLM and ChatRapid do that by themselves if "
        "they were given names (target=..., drafter=...) and no engine=..."
    )

    def __init__(
        self,
        target: LoadedModel,
        drafter: LoadedModel | DrafterService | None = None,
        *,
        draft_lm: LoadedModel | None = None,
        draft_head: str | Path | None = None,
        more_drafters: Sequence[LoadedModel] = (),
        compressor: ContextCompressor | None = None,
        embedder: Embedder | str | Path = DEFAULT_EMBEDDER,
        reranker: Rerank | str | Path | None = None,
        embedding_cache: str | Path | None = None,
        sampling: SamplingParams | None = None,
        speculation: SpeculationConfig | None = None,
        compression: CompressionConfig | None = None,
        kv_cache_bytes: int | Literal["auto"] = "auto",
        prefix_cache_bytes: int | Literal["auto"] = "auto",
        prefix_cache_dir: str | Path | None = None,
        prefix_cache_dir_bytes: int | Literal["auto"] = "auto",
        template_date: date | None = None,
    ) -> None:
        roles = [("target", target), ("drafter", drafter), ("draft_lm", draft_lm)]
        for name, given in (*roles, *(("more_drafters", each) for each in more_drafters)):
            if name == "drafter" and isinstance(given, DrafterService):
                continue
            if given is not None and not isinstance(given, LoadedModel):
                raise ConfigurationError(
                    f"RapidEngine({name}=...) takes what `models.loader.load` returns, not {shown(given)}: "
                    "RapidEngine.from_pretrained takes names and folders, RapidEngine.from_models transformers objects"
                )
        local = None if isinstance(drafter, DrafterService) else drafter
        require_one_vocabulary(target, local, draft_lm, *more_drafters)
        require_local(drafter, more_drafters)
        self.target: CausalLM = target.lm
        self.drafter: CausalLM = target.lm
        if isinstance(drafter, DrafterService):
            self.drafter = drafter.connect(target.lm.name, target.vocabulary, target.lm.weight_bytes)
        elif drafter is not None:
            self.drafter = drafter.lm
        self.draft_lm: CausalLM | None = None if draft_lm is None else draft_lm.lm
        self.vocabulary = target.vocabulary
        if template_date is not None:
            self.vocabulary.template_date = datetime.combine(template_date, time())
        self.sampling = sampling or SamplingParams()
        self.speculation = speculation or SpeculationConfig()
        self.compression = compression or CompressionConfig()
        self.more_drafters = tuple(each.lm for each in more_drafters)
        models = [self.target, self.drafter, *([] if self.draft_lm is None else [self.draft_lm]), *self.more_drafters]
        self._vocab_size = min(model.vocab_size for model in models)  # larger ones have padding at the end
        self.draft_head = None if draft_head is None else load_head(draft_head, self.target, self._vocab_size)
        kept = embedding_cache if embedding_cache or not prefix_cache_dir else Path(prefix_cache_dir) / EMBEDDINGS
        self.compressor: ContextCompressor = compressor or DefaultCompressor(
            embedder, self.vocabulary, kept, rerank=reranker
        )
        devices = {model.device for model in models}
        self._preparing = Preparing(self.vocabulary, self.target.name, self._vocab_size)
        self._sources = RecentSources()
        self._life = EngineLife()
        self._streams: weakref.WeakSet[CompletionStream] = weakref.WeakSet()
        self._borrowed = False  # whether the models belong to another engine (see `alone`)
        self._prefixes = Prefixes(
            PrefixCache(memory_budget(prefix_cache_bytes, devices)),
            None if prefix_cache_dir is None else PrefixStore(prefix_cache_dir, prefix_cache_dir_bytes),
            automatic=prefix_cache_bytes == "auto",
        )
        self._worker = Worker(Admission(kv_budget(kv_cache_bytes, devices), self._prefixes.running_bytes))
        # If the engine is never closed: models that the caller passed in get their attention setting back.
        self._abandoned = weakref.finalize(self, _abandon, os.getpid(), self._worker, self._prefixes, models)
        self._abandoned.atexit = False

    @classmethod
    @computes
    def from_pretrained(
        cls,
        target: str | Path = DEFAULT_TARGET,
        drafter: str | Path | DrafterService | None = None,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        device_map: Any = None,
        quantization: Quantization | None = None,
        drafter_quantization: Quantization | None = None,
        draft_lm: str | Path | None = None,
        more_drafters: Sequence[str | Path] = (),
        draft_lm_quantization: Quantization | None = None,
        drafter_dtype: str | torch.dtype | None = None,
        drafter_device: str | torch.device | None = None,
        drafter_device_map: Any = None,
        trust_remote_code: bool = False,
        verify: Literal["isolated"] | None = None,
        kv_dtype: KVDtype | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> RapidEngine:
        """Load the models and build an engine.

        Args:
            target, drafter: see `rapid_integrations.models.loader.load`. Without a drafter, or with the target's own
                name, the target drafts for itself on one copy of the weights, unless `drafter_quantization` differs.
            dtype, device, device_map, quantization, trust_remote_code, verify, on_progress: see there; the drafter's
                own settings default to the target's.
            kv_dtype: see there; it holds for all models.
            draft_lm, draft_lm_quantization: a model that only proposes; the target's own name shares its weights,
                unless the quantization differs. It is loaded on the target's device.
            more_drafters: names or folders of further drafters, loaded as the drafter is; the target's own name shares
                its weights.
            options: further arguments of `RapidEngine`.

        Raises:
            ModelLoadError: a model cannot be loaded or run.
        """
        remote = drafter if isinstance(drafter, DrafterService) else None
        named = None if isinstance(drafter, DrafterService) else drafter
        for name, given in (("target", target), ("drafter", named), ("draft_lm", draft_lm)):
            if given is not None and not isinstance(given, (str, Path)):
                raise ConfigurationError(
                    f"RapidEngine.from_pretrained({name}=...) takes a name or a folder, not {shown(given)}: give "
                    "transformers objects to RapidEngine.from_models(model, tokenizer)"
                )
        require_known(RapidEngine.from_pretrained, options, RapidEngine.__init__)
        require_nothing_to_load(remote, (drafter_quantization, drafter_dtype, drafter_device, drafter_device_map))
        with loaded_models(
            target,
            named,
            draft_lm,
            more_drafters,
            dtype=dtype,
            device=device,
            device_map=device_map,
            quantization=quantization,
            drafter_quantization=drafter_quantization,
            draft_lm_quantization=draft_lm_quantization,
            drafter_dtype=drafter_dtype,
            drafter_device=drafter_device,
            drafter_device_map=drafter_device_map,
            trust_remote_code=trust_remote_code,
            verify=verify,
            kv_dtype=kv_dtype,
            on_progress=on_progress,
        ) as models:
            options = {"draft_lm": models.draft_lm, "more_drafters": models.more_drafters, **options}
            return cls(models.target, remote or models.drafter, **options)

    @classmethod
    @computes
    def from_models(
        cls, model: Any, tokenizer: Any, *, drafter_model: Any = None, drafter_tokenizer: Any = None, **options: Any
    ) -> RapidEngine:
        """Build an engine from loaded transformers objects; `close` restores their attention settings.

        Without `drafter_tokenizer`, the drafter uses the target's tokenizer. `drafter_model` may also be a
        `RemoteDrafter`.

        Raises:
            ConfigurationError: a name was given instead of an object.
        """
        remote = drafter_model if isinstance(drafter_model, DrafterService) else None
        drafter_model = None if remote is not None else drafter_model
        require_objects(model, tokenizer, drafter_model, drafter_tokenizer)
        require_known(RapidEngine.from_models, options, RapidEngine.__init__)
        with wrapped_models(model, tokenizer, drafter_model, drafter_tokenizer) as models:
            return cls(models.target, remote or models.drafter, **options)

    @staticmethod
    def connect(url: str, **options: Any) -> RapidEngine:
        """Return an engine whose models run on a server (`rapid serve`). It takes the same requests.

        Args:
            url: the server, as in "http://127.0.0.1:8080".
            options: `api_key` and the further arguments of `RemoteEngine`.

        Raises:
            RemoteError: the server does not answer.
        """
        from rapid_integrations import RemoteEngine

        require_known(RapidEngine.connect, options, RemoteEngine.__init__)
        return RemoteEngine(url, **options)

    def alone(self, model: CausalLM) -> RapidEngine:
        """Return an engine in which one of this engine's models is target and drafter; both share the prefix cache.

        It closes together with this engine. Its own `close` does nothing.
        """
        self.require_open()
        engine = RapidEngine(LoadedModel(model, self.vocabulary), compressor=self.compressor, prefix_cache_bytes=0)
        engine._abandoned.detach()  # the models belong to this engine
        engine._prefixes = self._prefixes  # entries are keyed by the model that made them
        engine._life, engine._borrowed = self._life, True
        engine._worker = self._worker
        engine.sampling, engine.speculation, engine.compression = self.sampling, self.speculation, self.compression
        return engine

    @property
    def self_speculation(self) -> bool:
        """Whether the target drafts for itself."""
        return self.drafter is self.target

    @property
    def supports_tools(self) -> bool:
        """Whether the model's chat template takes tools and writes their calls with JSON arguments."""
        return self._preparing.supports_tools

    @property
    def reuses_prefixes(self) -> bool:
        """Whether the engine skips the prefill of tokens that a prompt shares with the start of an earlier one."""
        return self._prefixes.enabled

    @property
    def running_requests(self) -> int:
        """The number of requests that are being answered; those that wait for memory are not counted."""
        return self._worker.running

    @property
    def waiting_requests(self) -> int:
        """The number of requests that wait until there is memory for their KV caches."""
        return self._worker.waiting

    @property
    def kv_bytes(self) -> int:
        """Bytes of all KV caches, of running requests and of finished ones. What several of them share counts once."""
        return distinct_bytes(self._prefixes.caches())

    @property
    def closed(self) -> bool:
        """Whether the engine has been closed."""
        return self._life.closed

    def require_open(self) -> None:
        """Raise an error unless the engine can take a request.

        Raises:
            EngineClosedError: the engine has been closed.
            ForkedProcessError: this process was forked from the one that built the engine.
        """
        self._life.require()

    @computes
    def fingerprints(self) -> dict[str, str | None]:
        """Return a fingerprint of the present weights of each model; None if it cannot be computed.

        Reads all weights once. The keys are "target", and "drafter", "draft_lm" and "drafter 2" if they are others.
        """
        self.require_open()
        models = {"target": self.target, "drafter": self.drafter, "draft_lm": self.draft_lm}
        models |= {f"drafter {number}": each for number, each in enumerate(self.more_drafters, start=2)}
        others = {name: model for name, model in models.items() if name == "target" or model is not self.target}
        return {name: self._prefixes.fingerprint_of(model) for name, model in others.items() if model is not None}

    def clear_prefix_cache(self) -> None:
        """Free the KV caches of finished requests. Call it after changing the weights of a model in place.

        Files in `prefix_cache_dir` stay. They are keyed by the weights that wrote them.
        """
        self.require_open()
        self._prefixes.clear()

    def clear_texts(self) -> None:
        """Forget the earlier answers and the indexes of documents that proposers copy from. KV caches stay."""
        self.require_open()
        self._prefixes.texts.clear()

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
        )
        return self._explained(asked)

    def _explained(self, asked: Asked) -> PreparedPrompt:
        return self._preparing.prompts(asked)

    def count_tokens(
        self, prompt: PromptLike, *, tools: ToolDeclarations | None = None, apply_chat_template: bool | None = None
    ) -> int:
        """Return the number of tokens that the target would read, including those of its chat template."""
        self.require_open()
        return self._preparing.count_tokens(prompt, tools, apply_chat_template)

    def read(
        self,
        documents: DocumentsLike,
        *,
        prompt: PromptOf | None = None,
        compression: CompressionConfig | None = None,
        compressor: ContextCompressor | None = None,
        tools: ToolDeclarations | None = None,
        apply_chat_template: bool | None = None,
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
            compression, compressor, tools, apply_chat_template: those of the later questions; see `stream`.
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
            on_progress=on_progress,
        ).result()

    async def aread(self, documents: DocumentsLike, **options: Any) -> ReadAhead:
        """Do what `read` does without blocking the event loop. Cancelling the task stops the reading."""
        require_known(type(self).read, options)
        reading = await prepared_in_thread(self, partial(self._reading, documents), options)
        return await reading.aresult()

    @computes
    def _reading(
        self,
        documents: DocumentsLike,
        *,
        prompt: PromptOf | None = None,
        compression: CompressionConfig | None = None,
        compressor: ContextCompressor | None = None,
        tools: ToolDeclarations | None = None,
        apply_chat_template: bool | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reading:
        started = perf_counter()
        self.require_open()
        if not self.reuses_prefixes:
            raise ConfigurationError(
                "this engine keeps nothing that it could read ahead: prefix_cache_bytes is 0, and there is no "
                "prefix_cache_dir. Set one of them",
                code="nothing_kept",
            )
        first, second = (
            Asked(
                prompt=asked,
                sampling=self.sampling,
                speculation=self.speculation,
                compression=compression or self.compression,
                compressor=compressor or self.compressor,
                tools=tools,
                tool_choice="auto",
                parallel_tool_calls=True,
                apply_chat_template=apply_chat_template,
                report=on_progress or ignore_progress,
            )
            for asked in prompts_about(documents, prompt)
        )
        beginning = self._preparing.beginning(first, second, self._models())
        return Reading(beginning, self._prefixes, self._worker, self._life, first.report, started)

    def generate(self, prompt: PromptLike, **options: Any) -> Completion:
        """Return the whole answer to `prompt`. Takes the arguments of `stream` and joins its pieces."""
        require_known(type(self).stream, options)
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
        trace: bool = False,
        trace_candidates: int = CANDIDATES,
        on_progress: OnProgress | None = None,
    ) -> CompletionStream:
        """Answer `prompt` piece by piece.

        Errors of the request are raised here, before the first piece.

        Args:
            prompt: a string, chat messages, or a `Prompt`. Assistant messages may carry "tool_calls" (their content
                may be None then), and "tool" messages their results, as in OpenAI's API.
            sampling, speculation, compression, compressor: used instead of the engine's defaults.
            tools: declarations of the tools that the model may call, each {"type": "function", "function": {"name",
                "description", "parameters"}}.
            tool_choice: "auto" lets the model decide, "required" enforces at least one call, a tool's name enforces
                a call of that tool, and "none" hides the tools from the model.
            parallel_tool_calls: whether one answer may contain several calls.
            apply_chat_template: None wraps a string or `Prompt` as a user message if the model has a template; False
                passes it to the model unchanged.
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
        )
        return self._answered(asked, trace_candidates if trace else None)

    def _answered(self, asked: Asked, trace_candidates: int | None) -> CompletionStream:
        # 1) split the prompt into context and question, 2) compress the context for the drafter
        models = self._models()
        return self._stream_of(self._preparing.request(asked, models, trace_candidates), models)

    def drafter_stream(
        self, prepared: PreparedPrompt, *, sampling: SamplingParams | None = None
    ) -> CompletionStream | None:
        """Return the drafter's own answer to a prepared request, for somebody who waits while the target reads.

        The drafter answers from the retrieved chunks alone, so the answer is a guess and follows no law of the
        request. Ask for its first piece before the request's, because prompts are read in order.

        Args:
            prepared: the prompts of the request (`CompletionStream.prepared`).
            sampling: that of the request. Its `structured` is not applied.

        Returns:
            None if the answer would not begin clearly before the request's: little was left out for the drafter, or
            the target has read the prompt before. Also None if there is no memory for both, or if the request abstains.
        """
        self.require_open()
        models, sampling = self._models(), sampling or self.sampling
        worth = comes_first(prepared, models, self._prefixes.unread)
        if (
            prepared.abstains(sampling)
            or not worth
            or not fits_beside(prepared, models, sampling, self._worker.admission.nbytes)
        ):
            return None
        asked = Asked(
            prompt=prepared.drafter.text,
            sampling=sampling,
            speculation=self.speculation,
            compression=self.compression,
            compressor=self.compressor,
            tools=None,
            tool_choice="none",
            parallel_tool_calls=False,
            apply_chat_template=False,
            report=ignore_progress,
        )
        return self._stream_of(*by_drafter_alone(asked, prepared, models))

    def _stream_of(self, request: Request, models: EngineModels) -> CompletionStream:
        asked = request.asked
        self._worker.admission.require(*request.kv_need(models))

        def answering(job: Job) -> Steps[None]:
            return self._answer(models, request, job)

        def need() -> int:
            return sum(self._prefixes.need(*reader) for reader in request.readers(models))

        job = Job(answering, request.recorder, need, self._worker.wake)
        prompts = request.prompts
        sources_of = partial(self._sources.find, prompts.target.contexts, prompts.target.query)
        stream = CompletionStream(prompts, job, self._worker, self._life, asked.report, request.tracer, sources_of)
        self._streams.add(stream)
        return stream

    def _answer(self, models: EngineModels, request: Request, job: Job) -> Steps[None]:
        subject = about(request.prompts.target)
        with self._prefixes.request(subject) as readers, Run(models, request, readers, job.report) as run:
            job.held = readers.own_bytes
            if (instead := run.abstained()) is not None:
                job.put(instead)
                return
            yield from run.prefill()  # 3) target and drafter read their prompts
            yield from run.rounds(job.put)  # 4) { propose -> pass -> accept -> commit }, 5) pieces of text, statistics

    def compute(
        self,
        model: CausalLM,
        token_ids: Sequence[int],
        new_tokens: int,
        answering: Callable[[RequestReaders], Steps[None]],
    ) -> Job:
        """Have the worker run a computation beside the requests, as soon as there is memory for its KV cache.

        `server/remote` reads texts so, for which this engine's target drafts elsewhere.

        Args:
            model: one of this engine's.
            token_ids: the text that it reads first.
            new_tokens: how many tokens may follow.
            answering: makes the computation. It opens its reader in the role "drafter".

        Raises:
            OutOfMemoryError: it could never run.
            EngineClosedError, ForkedProcessError: see `stream`.
        """
        self.require_open()
        capacity = len(token_ids) + new_tokens
        self._worker.admission.require(cache_bytes(model, allocated_tokens(capacity)), capacity)

        def steps(job: Job) -> Steps[None]:
            with self._prefixes.request() as readers:
                job.held = readers.own_bytes
                yield from answering(readers)

        def need() -> int:
            return self._prefixes.need(model, "drafter", token_ids, capacity)

        job = Job(steps, Recorder(model.device), need, self._worker.wake)
        self._worker.submit(job)
        return job

    async def agenerate(self, prompt: PromptLike, **options: Any) -> Completion:
        """Return the whole answer to `prompt` without blocking the event loop. Takes the arguments of `stream`."""
        async with await self.astream(prompt, **options) as stream:
            return Completion.join([chunk async for chunk in stream], stream.prepared.retrieved, stream.trace)

    async def astream(self, prompt: PromptLike, **options: Any) -> AsyncCompletionStream:
        """Answer `prompt` piece by piece without blocking the event loop. Arguments and errors are as for `stream`."""
        require_known(type(self).stream, options)
        return await AsyncCompletionStream.start(self, prompt, options)

    def close(self) -> None:
        """End all requests, free models and caches; safe to call again.

        New requests raise `EngineClosedError`. Running requests end after the present pass, and
        their next piece raises `EngineClosedError`. `close` waits for that, and up to 30 seconds for writes to disk.
        Models that were given as objects get their own attention setting back. In a forked child, `close` does
        nothing, because the models belong to the parent.
        """
        if self._borrowed or not self._life.end():
            return
        self._worker.close()
        for stream in tuple(self._streams):
            stream.end_with_engine()
        self._prefixes.close()
        self._abandoned.detach()
        for model in self._models().all:
            model.close()
        for name in _FREED:
            vars(self).pop(name, None)

    async def aclose(self) -> None:
        """Do what `close` does without blocking the event loop."""
        await in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __getattr__(self, name: str) -> Any:
        if name in _FREED and "_life" in vars(self) and self.closed:
            raise EngineClosedError
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _models(self) -> EngineModels:
        return EngineModels(
            self.target,
            self.drafter,
            self.draft_lm,
            self.vocabulary,
            self._vocab_size,
            self.draft_head,
            self.more_drafters,
        )


def _abandon(process: int, worker: Worker, prefixes: Prefixes, models: Iterable[CausalLM]) -> None:
    """Release the resources of an engine that was garbage-collected but never closed. Does not wait."""
    if process == os.getpid():
        worker.close(wait=False)
        prefixes.abandon()
        for model in models:
            model.close()
