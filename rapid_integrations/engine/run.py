"""One request through the models: prefill both caches, then { propose -> score -> verify -> commit }, and the text."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

from rapid_integrations.config import SamplingParams, Settings
from rapid_integrations.decoding.fair_lock import FairLock
from rapid_integrations.decoding.loop import decode
from rapid_integrations.decoding.prefixes import RequestReaders
from rapid_integrations.decoding.proposal import ProposerRequest
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.stopping import Stopping
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.engine.plan import Plan, choose_draft_length
from rapid_integrations.engine.prepare import PreparedPrompt
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.outputs import CompletionChunk, DecodeStats, Usage
from rapid_integrations.progress import OnProgress
from rapid_integrations.proposers import proposer_class
from rapid_integrations.proposers.drafter import Drafter, ProposerModel
from rapid_integrations.sampling import Penalties, Randomness
from rapid_integrations.structured.held import Held
from rapid_integrations.tool_calls import ToolRequest
from rapid_integrations.trace.tracer import Tracer


@dataclass(frozen=True)
class Serving:
    """What the requests of one engine share: its models, and the turns that they take.

    Attributes:
        target, drafter, draft_lm: see `RapidEngine`.
        vocabulary: of all of them.
        vocab_size: of the law: the logits that all of them have.
        turns: one round or prefill chunk at a time.
    """

    target: CausalLM
    drafter: CausalLM
    draft_lm: CausalLM | None
    vocabulary: Vocabulary
    vocab_size: int
    turns: FairLock

    def run(
        self,
        sequences: RequestReaders,
        prepared: PreparedPrompt,
        plan: Plan,
        sampling: SamplingParams,
        request: ToolRequest | None,
        held: Held,
        recorder: Recorder,
        report: OnProgress,
        tracer: Tracer | None,
    ) -> Generator[CompletionChunk, None, None]:
        """Yield the answer piece by piece; the last piece says why it ends, and carries usage and statistics."""
        # Everything that a request owns lives in this frame and in `sequences`: closing the generator ends both.
        new_tokens, constraint = sampling.max_new_tokens, held.constraint
        penalty = Penalties(
            sampling.repetition_penalty,
            prepared.target_ids,
            self.vocab_size,
            self.target.device,
            frequency=sampling.frequency_penalty,
            presence=sampling.presence_penalty,
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
                scorer = Drafter(drafter, self.vocab_size, plan.law, penalty, eos, constraint)
            if plan.uses_draft_lm:
                assert self.draft_lm is not None
                small = sequences.open(self.draft_lm, "drafter", prepared.drafter_ids, capacity)
                self._prefill(small, "prefill draft model", report)
                draft_lm = ProposerModel(small, self.vocab_size, plan.law, penalty, eos, constraint)
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
            vocab_size=self.vocab_size,
            penalty=penalty,
            stopping=Stopping(eos, new_tokens, self._text_stream(request, sampling)),
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
            turns=self.turns,
            constraint=constraint,
            observer=None if tracer is None else tracer.begin(plan.law, penalty, scorer),
        )
        calls = None if request is None else request.stream(answer=sampling.structured is not None)
        shown = ""  # of the answer, where it is checked once it is whole
        for taken in rounds:
            text = taken.text if calls is None else calls.push(taken.text)
            if held.schema is not None:
                shown += text
            if taken.finish_reason is None:
                yield CompletionChunk(text=text, token_ids=taken.token_ids)
                continue
            cut = taken.finish_reason == "length"
            rest, found, invalid = ("", [], []) if calls is None else calls.finish(cut=cut)
            if request is not None and constraint is not None:
                found, refused = request.checked(found)
                invalid = [*refused, *invalid]
            if taken.finish_reason == "eos" and not found and not invalid:
                held.check(shown + rest)
            recorder.cached_prompt_tokens = target.reused
            recorder.cached_drafter_tokens = 0 if scorer is None else scorer.sequence.reused
            readers = [target, *(reader.sequence for reader in (scorer, draft_lm) if reader is not None)]
            recorder.cache_bytes = sum(reader.cache.nbytes for reader in readers)
            yield CompletionChunk(
                text=text + rest,
                token_ids=taken.token_ids,
                finish_reason="tool_calls" if found and not (cut and invalid) else taken.finish_reason,
                tool_calls=tuple(found),
                invalid_tool_calls=tuple(invalid),
                usage=Usage(
                    prompt_tokens=len(prepared.target_ids),
                    completion_tokens=recorder.tokens,
                    drafter_prompt_tokens=len(prepared.drafter_ids) if plan.uses_drafter else 0,
                ),
                stats=self._stats(prepared, plan, recorder, held.unenforced),
            )

    def _text_stream(self, request: ToolRequest | None, sampling: SamplingParams) -> TextStream:
        kept = frozenset[int]() if request is None else request.kept_tokens(self.vocabulary)
        finished = partial(self.vocabulary.decode_finished, keep=kept)
        return TextStream(self._decoder(request), sampling.stop, finished)

    def _decoder(self, request: ToolRequest | None) -> Callable[[Sequence[int]], str]:
        if request is None:
            return self.vocabulary.decode
        return partial(self.vocabulary.decode, keep=request.kept_tokens(self.vocabulary))

    def tracer(self, prepared: PreparedPrompt, settings: Sequence[Settings], request: ToolRequest | None) -> Tracer:
        """Return what records where each token of a request came from."""
        values = {name: value for each in settings for name, value in each.model_dump(mode="json").items()}
        names = {index: token for token, index in self.vocabulary.added_tokens.items()}
        return Tracer(
            prepared.target.query,
            prepared.target.contexts,
            values,
            self._decoder(request),
            lambda token: names.get(token) or self.vocabulary.decode([token]),
        )

    def _prefill(self, sequence: Reader, stage: str, report: OnProgress) -> None:
        if sequence.reused:
            report(stage, sequence.reused, len(sequence.tokens) - 1)
        chunks = sequence.prefill()
        while True:
            with self.turns:
                step = next(chunks, None)
            if step is None:
                return
            report(stage, *step)

    def _stats(
        self, prepared: PreparedPrompt, plan: Plan, recorder: Recorder, unenforced: tuple[str, ...]
    ) -> DecodeStats:
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
            draft_lm=self.draft_lm.name if plan.uses_draft_lm and self.draft_lm is not None else None,
            query_coverage=prepared.query_coverage,
            unenforced=unenforced,
            kernels=self.target.kernels,
        )
