"""Running a request: prefill both caches, repeat { propose -> pass -> accept -> commit }, and hand out the text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Self

from rapid_integrations.cache import distinct_bytes
from rapid_integrations.cache.indexed_texts import IndexedTexts
from rapid_integrations.decoding import moved_rows
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.elsewhere import DrafterElsewhere, ModelElsewhere
from rapid_integrations.decoding.loop import decode, scores_in_the_same_pass
from rapid_integrations.decoding.passes import RIDERS, Steps, side_by_side
from rapid_integrations.decoding.prefixes import RequestReaders
from rapid_integrations.decoding.proposal import MOST_TOKENS, ProposerRequest
from rapid_integrations.decoding.reader import Reader, prefill_chunk
from rapid_integrations.decoding.row_share import RowShares
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.several_drafters import SeveralDrafters
from rapid_integrations.decoding.stopping import Stopping, Taken
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.engine.loaded_models import EngineModels
from rapid_integrations.engine.plan import draft_lengths, step_bytes
from rapid_integrations.engine.request import Request
from rapid_integrations.outputs import CompletionChunk, DecodeStats, Usage
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.proposers import proposer_class
from rapid_integrations.sampling import Penalties, Randomness

if TYPE_CHECKING:
    from rapid_integrations.proposers.heads.drafting import HeadDrafter


class Run:
    """The run of one request. Call its two methods in order.

    This object and `readers` own all resources of the request. Closing both frees them.

    Args:
        models: the engine's models.
        request: the request to run.
        readers: open the prompts on caches that may already hold their beginning.
        shares: what rows have taken in the engine's other requests.
        report: told of the prefill's progress.
    """

    def __init__(
        self,
        models: EngineModels,
        request: Request,
        readers: RequestReaders,
        shares: RowShares,
        report: OnProgress = ignore_progress,
    ) -> None:
        self._models, self._request, self._readers, self._report = models, request, readers, report
        self._shares = shares
        sampling, prompts, eos = request.asked.sampling, request.prompts, models.vocabulary.eos_token_ids
        penalty = Penalties(
            sampling.repetition_penalty,
            prompts.target_ids,
            models.vocab_size,
            models.target.device,
            frequency=sampling.frequency_penalty,
            presence=sampling.presence_penalty,
            bias=sampling.logit_bias,
            ends=eos,
            least=sampling.min_new_tokens,
        )
        law, by_host = request.plan.law, isinstance(models.drafter, ModelElsewhere) or bool(models.more_drafters)
        self._rules = Rules(law, models.vocab_size, penalty, eos, request.held.constraint, by_host)
        self._target: Reader | None = None
        self._drafter: Drafter | None = None
        self._draft_lm: Drafter | None = None
        self._head: HeadDrafter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the caches. An error that is handled may hold this run, and the next request needs the room."""
        if isinstance(self._drafter, DrafterElsewhere):
            self._drafter.close()
        self._target = self._drafter = self._draft_lm = self._head = None

    def prefill(self) -> Steps[None]:
        """Prefill each model's cache with its prompt, except for tokens that the cache already holds."""
        request, models = self._request, self._models
        new_tokens = request.asked.sampling.max_new_tokens + MOST_TOKENS
        with request.recorder.phase("prefill"):
            target_ids, drafter_ids = request.prompts.target_ids, request.prompts.drafter_ids
            if request.plan.uses_drafter and isinstance(models.drafter, ModelElsewhere):  # it reads beside the target
                self._drafter = models.drafter.begin(drafter_ids, new_tokens, self._rules)
            self._target = self._readers.open(models.target, "target", target_ids, len(target_ids) + new_tokens)
            if request.plan.uses_draft_head:
                from rapid_integrations.proposers.heads.drafting import HeadDrafter

                assert models.draft_head is not None, "the plan was made for these models"
                self._head = HeadDrafter(models.draft_head, self._target, self._rules, own_rows_only=self._depends())
            capacity = len(drafter_ids) + new_tokens
            reads_target = self._read(self._target, "prefill target")
            if self._reads_all_of_its_prompt():
                reader = self._readers.open(models.drafter, "drafter", drafter_ids, capacity)
                reads_drafter = self._read(reader, "prefill drafter")
                yield from side_by_side(reads_target, reads_drafter, prefill_chunk(models.target.device) + RIDERS)
                self._drafter = Drafter(reader, self._rules)
            else:
                yield from reads_target
            if self._head is not None:
                self._head.read_prompt()
            if isinstance(self._drafter, DrafterElsewhere):
                yield from self._drafter.opened(partial(self._report, "prefill drafter"))
            elif request.plan.uses_drafter and self._drafter is None:
                assert not isinstance(models.drafter, ModelElsewhere), "it has begun already"
                if request.chosen is not None:
                    reader = self._readers.open_view(models.drafter, request.chosen, self._target.cache, new_tokens)
                    yield from self._read(reader, "prefill drafter")
                else:
                    assert request.runs is not None, "it reads all of its prompt"
                    reader = self._readers.open_empty(models.drafter, "drafter", drafter_ids, capacity)
                    taken = [(run, self._target.cache) for run in request.runs]
                    yield from moved_rows.prefill(reader, taken, partial(self._report, "prefill drafter"))
                self._drafter = Drafter(reader, self._rules)
            if self._drafter is not None and models.more_drafters:
                yield from self._add_drafters(self._drafter, capacity)
            if request.plan.uses_draft_lm:
                assert models.draft_lm is not None, "the plan was made for these models"
                reader = self._readers.open(models.draft_lm, "drafter", drafter_ids, capacity)
                yield from self._read(reader, "prefill draft model")
                self._draft_lm = Drafter(reader, self._rules)
        request.recorder.start_decoding()

    def _add_drafters(self, first: Drafter, capacity: int) -> Steps[None]:
        """Have further drafters read the drafter's prompt, and take the mean of all."""
        members = [first]
        for model in self._models.more_drafters:
            reader = self._readers.open(model, "drafter", self._request.prompts.drafter_ids, capacity)
            yield from self._read(reader, "prefill further drafters")
            members.append(Drafter(reader, self._rules))
        self._drafter = SeveralDrafters(members, self._request.plan.weights, self._rules)

    def rounds(self, emit: Callable[[CompletionChunk], None]) -> Steps[None]:
        """Decode round by round: propose, pass, accept, commit. Gives the answer to `emit`, piece by piece.

        The last piece carries the finish reason, calls, usage and statistics.
        """
        assert self._target is not None, "prefill() comes first"
        request, rules = self._request, self._rules
        drafter, draft_lm = self._drafter, self._draft_lm
        plan, prompts, sampling = request.plan, request.prompts, request.asked.sampling
        lengths = draft_lengths(
            plan,
            sampling,
            self._target,
            None if drafter is None else self._step_bytes(drafter),
            self._writer_bytes(),
            together=self._scores_together(),
            shares=self._shares,
        )
        texts = IndexedTexts() if self._depends() else self._readers.texts
        ids = prompts.target_ids, prompts.drafter_ids
        proposer = proposer_class(plan.proposer).from_request(
            ProposerRequest(
                *ids,
                rules,
                lengths,
                drafter,
                draft_lm,
                texts,
                plan.datastore,
                self._head,
                self._target,
                plan.self_drafting,
                () if plan.answers is None or self._depends() else plan.answers.texts(),
            )
        )
        vocabulary, kept = self._models.vocabulary, request.kept_tokens
        text = TextStream(
            partial(vocabulary.decode, keep=kept), sampling.stop, partial(vocabulary.decode_finished, keep=kept)
        )
        pieces = _Pieces(request, self._usage, self._stats)
        yield from decode(
            target=self._target,
            proposer=proposer,
            scorer=self._scorer(),
            rules=rules,
            stopping=Stopping(rules.eos_token_ids, sampling.max_new_tokens, text),
            rng=Randomness(sampling.seed, plan.law.ops),
            recorder=request.recorder,
            emit=lambda taken: emit(pieces.piece(taken)),
            observer=None if request.tracer is None else request.tracer.begin(plan.law, rules.penalty, drafter),
        )
        if plan.answers is not None:
            plan.answers.add(self._target.tokens[len(prompts.target_ids) :])

    def abstained(self) -> CompletionChunk | None:
        """Return the whole answer of a request that abstains, without a pass; None if it is to be answered.

        A request with a required form or with tools is always answered: its caller could not read the text.
        """
        request = self._request
        if request.held.constraint is not None or request.tools or not request.prompts.abstains(request.asked.sampling):
            return None
        request.recorder.answered_at_once()
        return CompletionChunk(
            text=request.asked.sampling.abstain_text,
            token_ids=(),
            finish_reason="abstained",
            usage=self._usage(),
            stats=self._stats(),
        )

    def _reads_all_of_its_prompt(self) -> bool:
        """Whether a drafter of this process reads its whole prompt, and takes no rows from the target."""
        request, drafter = self._request, self._models.drafter
        own = request.chosen is None and request.runs is None
        return request.plan.uses_drafter and own and not isinstance(drafter, ModelElsewhere)

    def _depends(self) -> bool:
        """Whether the answer depends on what is proposed, which must then not depend on earlier requests.

        What is proposed decides which numbers are drawn for a seeded sample, and what the law "lenient" lets stand.
        """
        sampling = self._request.asked.sampling
        return self._request.plan.law.kind == "lenient" or (sampling.seed is not None and not sampling.greedy)

    def _writer_bytes(self) -> float | None:
        """Return the bytes that whoever writes drafts beside the drafter reads for a token; None without one."""
        if self._head is not None and self._models.draft_head is not None:
            return float(self._models.draft_head.step_bytes)
        return None if self._draft_lm is None else self._step_bytes(self._draft_lm)

    def _scorer(self) -> Drafter | None:
        return self._drafter if self._request.plan.law.needs_drafter else None

    def _step_bytes(self, drafter: Drafter) -> float:
        if isinstance(drafter, DrafterElsewhere):
            return step_bytes(self._models.drafter, len(self._request.prompts.drafter_ids) - 1)
        readers = [each.reader for each in drafter.members]
        weights = {id(reader.model): reader.model.weight_bytes for reader in readers}  # read once for all of them
        return sum(weights.values()) + sum(
            step_bytes(reader.model, reader.cache.length) - reader.model.weight_bytes for reader in readers
        )

    def _scores_together(self) -> bool:
        return self._target is not None and scores_in_the_same_pass(self._target, self._scorer())

    def _read(self, reader: Reader, stage: str) -> Steps[None]:
        if reader.reused:
            self._report(stage, reader.reused, len(reader.tokens) - 1)
        yield from reader.prefill(partial(self._report, stage))

    def _usage(self) -> Usage:
        prompts, chosen = self._request.prompts, self._request.chosen
        drafter_ids = prompts.drafter_ids if chosen is None else chosen.token_ids  # it sees more rows than it chose
        return Usage(
            prompt_tokens=len(prompts.target_ids),
            completion_tokens=self._request.recorder.tokens,
            drafter_prompt_tokens=len(drafter_ids) if self._request.plan.uses_drafter else 0,
        )

    def _stats(self) -> DecodeStats:
        models, prompts = self._models, self._request.prompts
        plan, recorder = self._request.plan, self._request.recorder
        remote = self._drafter if isinstance(self._drafter, DrafterElsewhere) else None
        members = () if self._drafter is None or remote is not None else self._drafter.members
        local = members[0].reader if members else None
        drafters = [each.reader for each in (*members, *([] if self._draft_lm is None else [self._draft_lm]))]
        reused = 0 if local is None else local.reused
        readers = [*([] if self._target is None else [self._target]), *drafters]
        seconds = recorder.seconds
        return DecodeStats(
            law=plan.law.kind,
            eta=plan.law.eta if plan.law.needs_drafter else 0.0,
            proposer=plan.proposer,
            segmentation=prompts.target.segmentation,
            retrieval=None if prompts.compression is None else prompts.compression.source,
            target=models.target.name,
            drafter=models.drafters if plan.uses_drafter else None,
            rounds=recorder.rounds,
            drafted_tokens=recorder.drafted,
            accepted_tokens=recorder.accepted,
            compress_s=seconds.get("compress", 0.0),
            queued_s=seconds.get("queued", 0.0),
            prefill_s=seconds.get("prefill", 0.0),
            time_to_first_token_s=recorder.first_token_s,
            decode_s=recorder.decode_s,
            propose_s=seconds.get("propose", 0.0),
            score_s=seconds.get("score", 0.0),
            verify_s=seconds.get("verify", 0.0),
            tokens=recorder.tokens,
            cache_bytes=distinct_bytes(reader.cache for reader in readers),
            cached_prompt_tokens=0 if self._target is None else self._target.reused,
            cached_drafter_tokens=reused if remote is None else remote.reused,
            draft_lm=models.draft_lm.name if plan.uses_draft_lm and models.draft_lm is not None else None,
            draft_head=None if self._head is None or models.draft_head is None else models.draft_head.name,
            query_coverage=prompts.query_coverage,
            answerable=prompts.answerable,
            unenforced=self._request.held.unenforced,
            scored_with_target=self._scores_together() if plan.law.needs_drafter else None,
            kernels=models.target.kernels,
            kv_dtype=getattr(models.target, "kv_dtype", None) or str(models.target.dtype).removeprefix("torch."),
            sparse_prefill=getattr(models.target, "sparse_prefill", None),
            chunk_cache="off" if self._request.runs is None else self._request.asked.speculation.chunk_cache,
            remote=None if remote is None else remote.statistics(),
        )


class _Pieces:
    """Makes the pieces of an answer: text without tool calls, and what belongs to the last one."""

    def __init__(self, request: Request, usage: Callable[[], Usage], stats: Callable[[], DecodeStats]) -> None:
        self._held, self._tools = request.held, request.tools
        structured = request.asked.sampling.structured is not None
        self._calls = None if request.tools is None else request.tools.stream(answer=structured)
        self._usage, self._stats = usage, stats
        self._shown = ""  # the text so far, if the complete answer is checked

    def piece(self, taken: Taken) -> CompletionChunk:
        """Return the piece that belongs to a round's output."""
        held, tools, calls = self._held, self._tools, self._calls
        text = taken.text if calls is None else calls.push(taken.text)
        if held.schema is not None:
            self._shown += text
        if taken.finish_reason is None:
            return CompletionChunk(text=text, token_ids=taken.token_ids)
        cut = taken.finish_reason == "length"
        rest, found, invalid = ("", [], []) if calls is None else calls.finish(cut=cut)
        if tools is not None and held.constraint is not None:
            found, refused = tools.checked(found, enforced=calls is None or not calls.in_thinking)
            invalid = [*refused, *invalid]
        if taken.finish_reason == "eos" and not found and not invalid:
            held.check(self._shown + rest)
        return CompletionChunk(
            text=text + rest,
            token_ids=taken.token_ids,
            finish_reason="tool_calls" if found and not (cut and invalid) else taken.finish_reason,
            tool_calls=tuple(found),
            invalid_tool_calls=tuple(invalid),
            usage=self._usage(),
            stats=self._stats(),
        )
