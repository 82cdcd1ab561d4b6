"""How an engine answers.

    prompt -> split -> compress -> prefill target and drafter -> { propose -> pass -> accept -> commit } -> stream

`RunningEngine._answered` and `_answer` follow that order.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rapid_integrations.cache import distinct_bytes
from rapid_integrations.cache.kv_cache import allocated_tokens
from rapid_integrations.compression import ContextCompressor
from rapid_integrations.compression.sources import RecentSources
from rapid_integrations.config import CompressionConfig, SamplingParams
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.prefixes import Prefixes, RequestReaders
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.row_share import RowShares
from rapid_integrations.engine.answering import AnsweringEngine
from rapid_integrations.engine.drafter_alone import by_drafter_alone, comes_first, fits_beside
from rapid_integrations.engine.forked import computes
from rapid_integrations.engine.job import Job
from rapid_integrations.engine.life import FREED
from rapid_integrations.engine.loaded_models import EngineModels
from rapid_integrations.engine.prepared_prompt import PreparedPrompt, about
from rapid_integrations.engine.read_ahead import DocumentsLike, PromptOf, Reading, prompts_about
from rapid_integrations.engine.request import Asked, Request, ToolDeclarations
from rapid_integrations.engine.run import Run
from rapid_integrations.engine.stream import CompletionStream
from rapid_integrations.engine.worker import Worker
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models.causal_lm import CausalLM, cache_bytes
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    from rapid_integrations.proposers.heads.head import DraftHead


class RunningEngine(AnsweringEngine):
    """Runs requests and other computations on models of this process. They share its worker and its prefix cache.

    Attributes:
        target, drafter, draft_lm, draft_head, more_drafters, vocabulary: see `EngineModels`.
    """

    target: CausalLM
    drafter: CausalLM
    draft_lm: CausalLM | None
    draft_head: DraftHead | None
    more_drafters: tuple[CausalLM, ...]
    vocabulary: Vocabulary
    _vocab_size: int
    _prefixes: Prefixes
    _shares: RowShares
    _worker: Worker
    _sources: RecentSources
    _streams: weakref.WeakSet[CompletionStream]
    _abandoned: weakref.finalize[..., RunningEngine]
    _borrowed: bool  # whether the models belong to another engine (see `RapidEngine.alone`)

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
        """The number of requests that have not begun: for a pass at most, or until there is memory for their caches."""
        return self._worker.waiting

    @property
    def held_up_requests(self) -> int:
        """The number of waiting requests for whose caches there is no memory, or for those of one before them."""
        return self._worker.held_up

    @property
    def kv_bytes(self) -> int:
        """Bytes of all KV caches, of running requests and of finished ones. What several of them share counts once."""
        return distinct_bytes(self._prefixes.caches())

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

    def _answered(self, asked: Asked, trace_candidates: int | None) -> CompletionStream:
        # 1) split the prompt into context and question, 2) compress the context for the drafter
        models = self._models()
        return self._stream_of(self._preparing.request(asked, models, trace_candidates), models)

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
        chat_template_kwargs: Mapping[str, Any] | None = None,
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
        arguments = self._arguments(chat_template_kwargs, apply_chat_template)
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
                chat_template_kwargs=arguments,
            )
            for asked in prompts_about(documents, prompt)
        )
        beginning = self._preparing.beginning(first, second, self._models())
        return Reading(beginning, self._prefixes, self._worker, self._life, first.report, started)

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
        with self._prefixes.request(subject) as readers, Run(models, request, readers, self._shares, job.report) as run:
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
        for name in FREED:
            vars(self).pop(name, None)

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


def abandon(process: int, worker: Worker, prefixes: Prefixes, models: Iterable[CausalLM]) -> None:
    """Release the resources of an engine that was garbage-collected but never closed. Does not wait."""
    if process == os.getpid():
        worker.close(wait=False)
        prefixes.abandon()
        for model in models:
            model.close()
