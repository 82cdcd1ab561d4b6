"""The front door: a prompt in, a stream of text out.

    prompt -> split -> compress -> prefill target and drafter -> { propose -> score -> verify -> commit } -> stream

The file reads in that order: `stream` is the table of contents.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from collections.abc import Sequence as ReadOnly
from contextlib import ExitStack
from datetime import date, datetime, time
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import torch

from rapid_integrations.async_stream import AsyncCompletionStream
from rapid_integrations.cache.memory_budget import memory_budget
from rapid_integrations.cache.prefix_cache import PrefixCache
from rapid_integrations.cache.prefix_store import PrefixStore
from rapid_integrations.compression import ContextCompressor, Embedder
from rapid_integrations.config import (
    CompressionConfig,
    Quantization,
    SamplingParams,
    SpeculationConfig,
)
from rapid_integrations.decoding.loop import decode
from rapid_integrations.decoding.prefixes import Prefixes, RequestSequences
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.sequence import Sequence
from rapid_integrations.decoding.stopping import Stopping
from rapid_integrations.decoding.turns import Turns
from rapid_integrations.default_compressor import DEFAULT_EMBEDDER, DefaultCompressor
from rapid_integrations.errors import ConfigurationError, ContextOverflowError, VocabularyMismatchError
from rapid_integrations.models import loader
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.out_of_memory import memory_errors_taught
from rapid_integrations.outputs import Completion, CompletionChunk, DecodeStats, Usage
from rapid_integrations.plan import Plan, choose_draft_length, plan_request
from rapid_integrations.prepared import PreparedPrompt
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.prompt import PromptLike, RenderedPrompt, render
from rapid_integrations.proposers import proposer_class
from rapid_integrations.proposers.base import ProposerRequest
from rapid_integrations.proposers.drafter_lm import DrafterLM, DraftLM
from rapid_integrations.sampling import Constraint, Randomness, RepetitionPenalty
from rapid_integrations.streaming import TextStream
from rapid_integrations.tool_calls import CallFormat, ToolRequest, learn_call_format
from rapid_integrations.tool_calls.request import NO_TOOLS, with_arguments_as

ToolDeclarations: TypeAlias = ReadOnly[Mapping[str, Any]]

DEFAULT_TARGET = "smollm2-135m-instruct"


class CompletionStream(Iterator[CompletionChunk]):
    """A running answer. Iterate over it; close it (or leave its `with` block) to stop early.

    Its KV caches then go to the engine's prefix cache, as far as that has room, and are freed otherwise.

    Attributes:
        prepared: what each model reads.
    """

    def __init__(self, prepared: PreparedPrompt, chunks: Generator[CompletionChunk, None, None]) -> None:
        self.prepared = prepared
        self._chunks = chunks

    def __next__(self) -> CompletionChunk:
        return next(self._chunks)

    def close(self) -> None:
        """Stop decoding and give the caches back; safe to call again."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RapidEngine:
    """Answers prompts with a target that reads everything and a drafter that reads what was retrieved.

    Several threads may use one engine: their requests take turns by the round.

    Args:
        target: the model whose text this is.
        drafter: another model with the same vocabulary; None drafts with the target itself (self-speculation).
        draft_lm: a model with the same vocabulary that only proposes (proposer "draft_lm" or "hybrid"): it reads the
            drafter's prompt, and the drafter scores what it writes. For a large drafter.
        compressor: makes the drafter's context; None builds one from `embedder`.
        embedder: an `Embedder`, a packaged name, a folder or a hub name; loaded when first needed.
        embedding_cache: a file that keeps embeddings between runs; None keeps them in memory.
        sampling, speculation, compression: defaults of its requests.
        prefix_cache_bytes: memory for the KV caches of ended requests: a prompt that begins like an earlier one is
            read from where they differ. "auto" takes a quarter of what is available now on the models' device; 0
            keeps nothing. Requests in flight are not counted.
        prefix_cache_dir: a folder that keeps them between runs too, written in the background; None keeps none.
        prefix_cache_dir_bytes: of its files; "auto" is a quarter of what is free there and what they take.
        template_date: the day that chat templates such as Llama 3.1's write at the head of a prompt; None takes the
            day on which the model was loaded. With another day, nothing in `prefix_cache_dir` is found: pin it there.

    Raises:
        VocabularyMismatchError: the drafter's tokenizer differs from the target's.
    """

    def __init__(
        self,
        target: LoadedModel,
        drafter: LoadedModel | None = None,
        *,
        draft_lm: LoadedModel | None = None,
        compressor: ContextCompressor | None = None,
        embedder: Embedder | str | Path = DEFAULT_EMBEDDER,
        embedding_cache: str | Path | None = None,
        sampling: SamplingParams | None = None,
        speculation: SpeculationConfig | None = None,
        compression: CompressionConfig | None = None,
        prefix_cache_bytes: int | Literal["auto"] = "auto",
        prefix_cache_dir: str | Path | None = None,
        prefix_cache_dir_bytes: int | Literal["auto"] = "auto",
        template_date: date | None = None,
    ) -> None:
        for model in (target, drafter, draft_lm):
            if model is not None and model.lm.vocab_size <= model.vocabulary.highest_token_id:
                raise VocabularyMismatchError(
                    f"{model.lm.name} gives {model.lm.vocab_size:,} logits, but its tokenizer has ids up to "
                    f"{model.vocabulary.highest_token_id:,}: they do not belong together"
                )
        for model in (drafter, draft_lm):
            if model is not None:
                target.vocabulary.require_same(model.vocabulary, target.lm.name, model.lm.name)
        self.target: CausalLM = target.lm
        self.drafter: CausalLM = target.lm if drafter is None else drafter.lm
        self.draft_lm: CausalLM | None = None if draft_lm is None else draft_lm.lm
        self.vocabulary = target.vocabulary
        if template_date is not None:
            self.vocabulary.template_date = datetime.combine(template_date, time())
        self.sampling = sampling or SamplingParams()
        self.speculation = speculation or SpeculationConfig()
        self.compression = compression or CompressionConfig()
        models = [self.target, self.drafter, *([] if self.draft_lm is None else [self.draft_lm])]
        self._vocab_size = min(model.vocab_size for model in models)  # the rest is padding
        self.compressor: ContextCompressor = compressor or DefaultCompressor(embedder, self.vocabulary, embedding_cache)
        self._turns = Turns()
        devices = {model.device for model in models}
        self._prefixes = Prefixes(
            PrefixCache(memory_budget(prefix_cache_bytes, devices)),
            None if prefix_cache_dir is None else PrefixStore(prefix_cache_dir, prefix_cache_dir_bytes),
        )

    @classmethod
    def from_pretrained(
        cls,
        target: str | Path = DEFAULT_TARGET,
        drafter: str | Path | None = None,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        device_map: Any = None,
        quantization: Quantization | None = None,
        drafter_quantization: Quantization | None = None,
        draft_lm: str | Path | None = None,
        draft_lm_quantization: Quantization | None = None,
        drafter_dtype: str | torch.dtype | None = None,
        drafter_device: str | torch.device | None = None,
        drafter_device_map: Any = None,
        trust_remote_code: bool = False,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> RapidEngine:
        """Load the models and build an engine.

        Args:
            target, drafter: see `rapid_integrations.models.loader.load`. No drafter, or the target's own name, drafts
                with the target itself on one copy of the weights, unless `drafter_quantization` asks for another.
            dtype, device, device_map, quantization, trust_remote_code, on_progress: see there; the drafter's own
                settings default to the target's.
            draft_lm, draft_lm_quantization: a model that only proposes; the target's own name shares its weights,
                unless it is quantised in another way. It lies on the target's device.
            options: further arguments of `RapidEngine`.

        Raises:
            ModelLoadError: a model cannot be loaded or run.
        """
        shared: dict[str, Any] = {"trust_remote_code": trust_remote_code, "on_progress": on_progress}
        with ExitStack() as on_failure:
            loaded = loader.load(
                target, dtype=dtype, device=device, device_map=device_map, quantization=quantization, **shared
            )
            on_failure.callback(_close, loaded.lm)
            other = None
            same = drafter is None or str(drafter) == str(target)
            if not same or drafter_quantization not in (None, quantization):
                other = loader.load(
                    target if drafter is None else drafter,
                    quantization=drafter_quantization or quantization,
                    dtype=drafter_dtype or dtype,
                    device=drafter_device or device,
                    device_map=drafter_device_map or device_map,
                    **shared,
                )
                on_failure.callback(_close, other.lm)
            small = None
            if draft_lm is not None:
                small = loaded
                if str(draft_lm) != str(target) or draft_lm_quantization not in (None, quantization):
                    small = loader.load(
                        draft_lm, dtype=dtype, device=device, quantization=draft_lm_quantization, **shared
                    )
                    on_failure.callback(_close, small.lm)
            engine = cls(loaded, other, draft_lm=small, **options)
            on_failure.pop_all()
            return engine

    @classmethod
    def from_models(
        cls, model: Any, tokenizer: Any, *, drafter_model: Any = None, drafter_tokenizer: Any = None, **options: Any
    ) -> RapidEngine:
        """Build an engine from transformers objects that are already there; `close` gives them back unchanged.

        A drafter without a tokenizer of its own is taken to share the target's.
        """
        with ExitStack() as on_failure:
            target = loader.wrap(model, tokenizer)
            on_failure.callback(_close, target.lm)
            drafter = None
            if drafter_model is not None:
                drafter = loader.wrap(drafter_model, tokenizer if drafter_tokenizer is None else drafter_tokenizer)
                on_failure.callback(_close, drafter.lm)
            engine = cls(target, drafter, **options)
            on_failure.pop_all()  # nothing failed: they stay as they are until the engine is closed
            return engine

    @property
    def self_speculation(self) -> bool:
        """Whether the target drafts for itself."""
        return self.drafter is self.target

    @property
    def supports_tools(self) -> bool:
        """Whether the model's chat template takes tools and writes their calls with JSON arguments."""
        try:
            return bool(self._call_format)
        except ConfigurationError:
            return False

    @property
    def reuses_prefixes(self) -> bool:
        """Whether prompts are read from where they differ from earlier ones."""
        return self._prefixes.enabled

    def clear_prefix_cache(self) -> None:
        """Free what ended requests left in memory. Needed after the weights of a model have been changed in place.

        Files in `prefix_cache_dir` stay: they are found by the weights that wrote them.
        """
        self._prefixes.clear()

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
        """Return what target and drafter would read; no model runs but the embedder."""
        request = self._request_tools(tools, tool_choice, parallel_tool_calls)
        rendered = self._split(prompt, apply_chat_template, request)
        return self._compress(
            rendered, compression or self.compression, compressor or self.compressor, on_progress or ignore_progress
        )

    def count_tokens(
        self, prompt: PromptLike, *, tools: ToolDeclarations | None = None, apply_chat_template: bool | None = None
    ) -> int:
        """Return how many tokens the target would read, those of its chat template included."""
        request = self._request_tools(tools, "auto", True)
        return len(self.vocabulary.encode_prompt(self._split(prompt, apply_chat_template, request)))

    def generate(self, prompt: PromptLike, **options: Any) -> Completion:
        """Answer `prompt`; takes what `stream` takes and joins what it yields."""
        with self.stream(prompt, **options) as stream:
            return Completion.join(list(stream), stream.prepared.retrieved)

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
        on_progress: OnProgress | None = None,
    ) -> CompletionStream:
        """Answer `prompt` piece by piece.

        Everything that can be wrong with the request is raised here, before the first piece is asked for.

        Args:
            prompt: a string, chat messages, or a `Prompt`. Assistant messages may carry "tool_calls" (their content
                may be None then), and "tool" messages their results, as in OpenAI's API.
            sampling, speculation, compression, compressor: in place of the engine's defaults.
            tools: what the model may call: {"type": "function", "function": {"name", "description", "parameters"}}.
            tool_choice: "auto" lets the model decide, "required" wants at least one call, a tool's name wants that
                one, and "none" tells the model of no tools.
            parallel_tool_calls: whether one answer may hold several calls.
            apply_chat_template: None wraps a string or `Prompt` as a user message where the model has a template;
                False gives it to the model as it is.
            on_progress: called with (stage, done, total) while embedding and prefilling.

        Raises:
            PromptError, ConfigurationError, ContextOverflowError: see `rapid_integrations.errors`.
            OutOfMemoryError: while passages are found, or from the stream; everything it held is free by then.
            MissingExtraError: structured output or a required call without the package that they need.
        """
        sampling = sampling or self.sampling
        report = on_progress or ignore_progress
        plan = plan_request(speculation or self.speculation, sampling, self.target, self.drafter, self.draft_lm)
        request = self._request_tools(tools, tool_choice, parallel_tool_calls)
        constraint = self._constrain(sampling, request)
        recorder = Recorder(self.target.device)

        # 1) split the prompt into context and question
        rendered = self._split(prompt, apply_chat_template, request)

        # 2) compress the context for the drafter
        with recorder.phase("compress"):
            if plan.uses_drafter or plan.uses_draft_lm:
                prepared = self._compress(
                    rendered, compression or self.compression, compressor or self.compressor, report
                )
            else:
                ids = self.vocabulary.encode_prompt(rendered)
                prepared = PreparedPrompt(rendered, rendered, ids, ids, None)
        plan = plan.for_prompts(prepared, self.self_speculation)
        self._require_room(self.target, prepared.target_ids, sampling.max_new_tokens)
        if plan.uses_drafter:
            self._require_room(self.drafter, prepared.drafter_ids, sampling.max_new_tokens)
        if plan.uses_draft_lm and self.draft_lm is not None:
            self._require_room(self.draft_lm, prepared.drafter_ids, sampling.max_new_tokens)

        # 3) prefill both, 4) propose, score, verify, commit, 5) stream
        return CompletionStream(
            prepared, self._reusing(prepared, plan, sampling, request, constraint, recorder, report)
        )

    async def agenerate(self, prompt: PromptLike, **options: Any) -> Completion:
        """Answer `prompt` without blocking the event loop; takes what `stream` takes."""
        async with await self.astream(prompt, **options) as stream:
            return Completion.join([chunk async for chunk in stream], stream.prepared.retrieved)

    async def astream(self, prompt: PromptLike, **options: Any) -> AsyncCompletionStream:
        """Answer `prompt` piece by piece without blocking the event loop; takes and raises what `stream` does."""
        return await AsyncCompletionStream.start(self, prompt, options)

    def close(self) -> None:
        """Free the prefix cache (what is being written to disk ends first, within 30 seconds), and give the models
        their own attention setting back.
        """
        self._prefixes.close()
        _close(self.target)
        _close(self.drafter)
        if self.draft_lm is not None:
            _close(self.draft_lm)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the stages -------------------------------------------------------------------------------------------------

    def _split(
        self, prompt: PromptLike, apply_chat_template: bool | None, request: ToolRequest | None
    ) -> RenderedPrompt:
        template = None if apply_chat_template is False else self.vocabulary.chat_template
        if apply_chat_template and template is None:
            raise ConfigurationError(f"apply_chat_template=True, but {self.target.name} has no chat template")
        if request is not None and template is None:
            raise ConfigurationError(
                "apply_chat_template=False with tools: the chat template is what tells the model of them. Leave it out"
            )
        declarations = None if request is None else request.declarations
        return render(prompt, template and partial(self._render_chat, tools=declarations))

    def _render_chat(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        if any(message.get("tool_calls") for message in messages):
            as_text = self.supports_tools and self._call_format.arguments_as_text
            messages = with_arguments_as(messages, as_text)
        return self.vocabulary.render_chat(messages, tools)

    def _request_tools(self, tools: ToolDeclarations | None, choice: str, parallel: bool) -> ToolRequest | None:
        if not tools or choice == NO_TOOLS:
            return None
        return ToolRequest.check(tools, choice, parallel, self._call_format)

    @cached_property
    def _call_format(self) -> CallFormat:
        if self.vocabulary.chat_template is None:
            raise ConfigurationError(
                f"{self.target.name} cannot call tools: it has no chat template. Use an instruction-tuned model"
            )
        return learn_call_format(self.vocabulary.render_chat, self.vocabulary.eos_tokens, self.target.name)

    def _compress(
        self, rendered: RenderedPrompt, config: CompressionConfig, compressor: ContextCompressor, report: OnProgress
    ) -> PreparedPrompt:
        target_ids = self.vocabulary.encode_prompt(rendered)
        if not rendered.context_spans:
            return PreparedPrompt(rendered, rendered, target_ids, target_ids, None)
        way_out = "Shorten the document, or use a smaller embedder, or one on another device"
        with memory_errors_taught("finding the passages that the question needs", way_out):
            compression = compressor.compress(rendered.contexts, rendered.query, config, report)
        if not compression.shortened:
            return PreparedPrompt(rendered, rendered, target_ids, target_ids, compression)
        drafter = rendered.splice(compression.texts)
        return PreparedPrompt(rendered, drafter, target_ids, self.vocabulary.encode_prompt(drafter), compression)

    def _constrain(self, sampling: SamplingParams, request: ToolRequest | None) -> Constraint | None:
        if request is not None:
            if sampling.structured is not None:
                raise ConfigurationError(
                    "structured output and tools in one request: an answer is either. Use tool_choice='none', or ask "
                    "for the structured answer in a request of its own"
                )
            return request.constraint(self.vocabulary, self._vocab_size)
        if sampling.structured is None:
            return None
        from rapid_integrations.structured import GrammarConstraint, grammar_of

        return GrammarConstraint(self.vocabulary, self._vocab_size, grammar_of(sampling.structured))

    def _require_room(self, model: CausalLM, prompt_ids: list[int], new_tokens: int) -> None:
        if len(prompt_ids) + new_tokens > model.context_window:
            raise ContextOverflowError(
                model=model.name,
                prompt_tokens=len(prompt_ids),
                new_tokens=new_tokens,
                context_window=model.context_window,
            )

    def _reusing(self, *request: Any) -> Generator[CompletionChunk, None, None]:
        with self._prefixes.request() as sequences:
            yield from self._run(sequences, *request)

    def _run(
        self,
        sequences: RequestSequences,
        prepared: PreparedPrompt,
        plan: Plan,
        sampling: SamplingParams,
        request: ToolRequest | None,
        constraint: Constraint | None,
        recorder: Recorder,
        report: OnProgress,
    ) -> Generator[CompletionChunk, None, None]:
        # Everything that a request owns lives in this frame and in `sequences`: closing the generator ends both.
        new_tokens = sampling.max_new_tokens
        penalty = RepetitionPenalty(
            sampling.repetition_penalty, prepared.target_ids, self._vocab_size, self.target.device
        )
        eos = self.vocabulary.eos_token_ids

        with recorder.phase("prefill"):
            capacity = len(prepared.target_ids) + new_tokens
            target = sequences.open(self.target, "target", prepared.target_ids, capacity)
            self._prefill(target, "prefill target", report)
            scorer = draft_lm = None
            capacity = len(prepared.drafter_ids) + new_tokens
            if plan.uses_drafter:
                drafter = sequences.open(self.drafter, "drafter", prepared.drafter_ids, capacity)
                self._prefill(drafter, "prefill drafter", report)
                scorer = DrafterLM(drafter, self._vocab_size, plan.law, penalty, eos, constraint)
            if plan.uses_draft_lm:
                assert self.draft_lm is not None
                small = sequences.open(self.draft_lm, "drafter", prepared.drafter_ids, capacity)
                self._prefill(small, "prefill draft model", report)
                draft_lm = DraftLM(small, self._vocab_size, plan.law, penalty, eos, constraint)
        recorder.start_decoding()

        proposer = proposer_class(plan.proposer).from_request(
            ProposerRequest(
                prepared.target_ids, prepared.drafter_ids, scorer, plan.law, penalty, eos, constraint, draft_lm
            )
        )
        rounds = decode(
            target=target,
            proposer=proposer,
            scorer=scorer if plan.law.needs_drafter else None,
            law=plan.law,
            vocab_size=self._vocab_size,
            penalty=penalty,
            stopping=Stopping(eos, new_tokens, TextStream(self._decoder(request), sampling.stop)),
            draft_length=choose_draft_length(
                plan,
                sampling,
                target,
                None if scorer is None else scorer.sequence,
                None if draft_lm is None else draft_lm.sequence,
                proposer,
            ),
            rng=Randomness(sampling.seed),
            recorder=recorder,
            turns=self._turns,
            constraint=constraint,
        )
        calls = None if request is None else request.stream()
        for taken in rounds:
            text = taken.text if calls is None else calls.push(taken.text)
            if taken.finish_reason is None:
                yield CompletionChunk(text=text, token_ids=taken.token_ids)
                continue
            rest, found = ("", []) if calls is None else calls.finish()
            recorder.cached_prompt_tokens = target.reused
            recorder.cached_drafter_tokens = 0 if scorer is None else scorer.sequence.reused
            readers = [target, *(reader.sequence for reader in (scorer, draft_lm) if reader is not None)]
            recorder.cache_bytes = sum(reader.cache.nbytes for reader in readers)
            yield CompletionChunk(
                text=text + rest,
                token_ids=taken.token_ids,
                finish_reason="tool_calls" if found else taken.finish_reason,
                tool_calls=tuple(found),
                usage=Usage(
                    prompt_tokens=len(prepared.target_ids),
                    completion_tokens=recorder.tokens,
                    drafter_prompt_tokens=len(prepared.drafter_ids) if plan.uses_drafter else 0,
                ),
                stats=self._stats(prepared, plan, recorder),
            )

    def _decoder(self, request: ToolRequest | None) -> Callable[[ReadOnly[int]], str]:
        if request is None:
            return self.vocabulary.decode
        return partial(self.vocabulary.decode, keep=request.kept_tokens(self.vocabulary))

    def _prefill(self, sequence: Sequence, stage: str, report: OnProgress) -> None:
        if sequence.reused:
            report(stage, sequence.reused, len(sequence.tokens) - 1)
        chunks = sequence.prefill()
        while True:
            with self._turns:
                step = next(chunks, None)
            if step is None:
                return
            report(stage, *step)

    def _stats(self, prepared: PreparedPrompt, plan: Plan, recorder: Recorder) -> DecodeStats:
        seconds = recorder.seconds
        return DecodeStats(
            law=plan.law.kind,
            eta=plan.law.eta if plan.law.needs_drafter else 0.0,
            proposer=plan.proposer,
            segmentation=prepared.target.segmentation,
            retrieval=None if prepared.compression is None else prepared.compression.source,
            target=self.target.name,
            drafter=self.drafter.name if plan.uses_drafter else None,
            rounds=recorder.rounds,
            drafted_tokens=recorder.drafted,
            accepted_tokens=recorder.accepted,
            compress_s=seconds.get("compress", 0.0),
            prefill_s=seconds.get("prefill", 0.0),
            time_to_first_token_s=recorder.first_token_s,
            decode_s=recorder.decode_s,
            propose_s=seconds.get("propose", 0.0),
            score_s=seconds.get("score", 0.0),
            verify_s=seconds.get("verify", 0.0),
            tokens=recorder.tokens,
            cache_bytes=recorder.cache_bytes,
            cached_prompt_tokens=recorder.cached_prompt_tokens,
            cached_drafter_tokens=recorder.cached_drafter_tokens,
        )


def _close(model: CausalLM) -> None:
    if callable(close := getattr(model, "close", None)):
        close()
