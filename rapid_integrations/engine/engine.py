"""`RapidEngine`: the models of an engine, what they are built from, and the memory that they get.

How it is asked lies in `answering`, how it answers in `running`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Literal

import torch

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
from rapid_integrations.decoding.prefixes import Prefixes
from rapid_integrations.decoding.row_share import RowShares
from rapid_integrations.engine.admission import Admission
from rapid_integrations.engine.forked import computes
from rapid_integrations.engine.life import EngineLife
from rapid_integrations.engine.loaded_models import (
    DrafterService,
    loaded_models,
    require_local,
    require_nothing_to_load,
    require_objects,
    require_one_vocabulary,
    wrapped_models,
)
from rapid_integrations.engine.prepare import Preparing
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.engine.request import ToolDeclarations
from rapid_integrations.engine.running import RunningEngine, abandon
from rapid_integrations.engine.stream import CompletionStream
from rapid_integrations.engine.worker import Worker
from rapid_integrations.errors import ConfigurationError, shown
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import TemplateArguments

__all__ = ["DEFAULT_TARGET", "CompletionStream", "PreparedPrompt", "RapidEngine", "ToolDeclarations"]


class RapidEngine(RunningEngine):
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
        chat_template_kwargs: arguments of the target's chat template, such as {"enable_thinking": False}: names that
            it reads, and JSON values. A request may name further ones, or set them otherwise.

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
        chat_template_kwargs: Mapping[str, Any] | None = None,
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
        self._template_arguments = TemplateArguments(chat_template_kwargs)
        self.vocabulary.require_arguments(self._template_arguments)
        if template_date is not None:
            self.vocabulary.template_date = datetime.combine(template_date, time())
        self.sampling = sampling or SamplingParams()
        self.speculation = speculation or SpeculationConfig()
        self.compression = compression or CompressionConfig()
        self.more_drafters = tuple(each.lm for each in more_drafters)
        models = [self.target, self.drafter, *([] if self.draft_lm is None else [self.draft_lm]), *self.more_drafters]
        self._vocab_size = min(model.vocab_size for model in models)  # larger ones have padding at the end
        self.draft_head = None
        if draft_head is not None:
            from rapid_integrations.proposers.heads.loading import load_head

            self.draft_head = load_head(draft_head, self.target, self._vocab_size)
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
        self._shares = RowShares()
        self._worker = Worker(Admission(kv_budget(kv_cache_bytes, devices), self._prefixes.running_bytes))
        # If the engine is never closed: models that the caller passed in get their attention setting back.
        self._abandoned = weakref.finalize(self, abandon, os.getpid(), self._worker, self._prefixes, models)
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
        sparse_prefill: float | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> RapidEngine:
        """Load the models and build an engine.

        Args:
            target, drafter: see `rapid_integrations.models.loader.load`. Without a drafter, or with the target's own
                name, the target drafts for itself on one copy of the weights, unless `drafter_quantization` differs.
            dtype, device, device_map, quantization, trust_remote_code, verify, on_progress: see there; the drafter's
                own settings default to the target's.
            kv_dtype, sparse_prefill: see there; they hold for all models.
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
            sparse_prefill=sparse_prefill,
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
        engine._template_arguments = self._template_arguments
        return engine

    @property
    def self_speculation(self) -> bool:
        """Whether the target drafts for itself."""
        return self.drafter is self.target

    @property
    def supports_tools(self) -> bool:
        """Whether the model's chat template takes tools and writes their calls in a form that can be read."""
        return self._preparing.supports_tools(self.chat_template_kwargs)
