"""What a request gives back. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rapid_integrations.config import Eta

FinishReason = Literal["eos", "stop", "length", "tool_calls"]
"""Why an answer ended: an end token, a stop string, or the number of tokens; "tool_calls" if it holds any call and was
not cut within one."""


class _Output(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(_Output):
    """Token counts. `prompt_tokens` is what the target read, `drafter_prompt_tokens` what the drafter did."""

    prompt_tokens: int
    completion_tokens: int
    drafter_prompt_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion of the target."""
        return self.prompt_tokens + self.completion_tokens


class ToolCall(_Output):
    """A call of one of the request's tools. `id` is the model's own where its format has one, else made up."""

    id: str
    name: str
    arguments: dict[str, Any]


class InvalidToolCall(_Output):
    """A tool call that cannot be made: cut off, not JSON, of no tool that is declared, or one more than is allowed.

    `name` is the tool's, None where none can be read; `arguments` the text of the arguments as far as they were
    written; `error` says what is wrong.
    """

    name: str | None
    arguments: str
    error: str


class RetrievedChunk(_Output):
    """A chunk of the context that the drafter read: character offsets into its context span, text and score."""

    context: int
    start: int
    end: int
    text: str
    tokens: int
    score: float | None


class DecodeStats(_Output):
    """How an answer came about. Times in seconds.

    `law` is what the output followed; `segmentation` how the context was found in the prompt: "explicit",
    "delimiters", "heuristic", "plain", or what the prompt's maker called it. `retrieval` says whose scores chose what
    the drafter read ("embedder", "reranker", "retriever", "pipeline"), or "whole" where it read everything; None
    without a drafter or a context. `draft_lm` is the model that only proposes, where one did. `prefill_s` is for all
    models. `decode_s` runs from the end of the prefill to the last token and is the sum of `propose_s` (drafting),
    `score_s` (the drafter's other passes), `verify_s` (the target's passes) and the rest (sampling, text).
    `cached_prompt_tokens` and `cached_drafter_tokens` count the tokens of the two prompts that an earlier request had
    read: they were not prefilled. `query_coverage` is the share of the question's distinctive words, as the document
    has them, that what was retrieved has, too; None where nothing was left out.
    `unenforced` lists what of a JSON schema no grammar says: answers and calls are checked for it when they are whole.
    `scored_with_target` says whether target and drafter read each draft in one pass, which reads shared weights once;
    `verify_s` then counts both. None if the law needs no drafter.
    `kernels` names the kernels that computed the target's steps: "avx512_bf16", "avx512", "avx2", "neon", "compiled" if
    they were compiled on this machine, or "none (reason)" if PyTorch's operators did, which take 2.5 times as long.
    """

    law: str
    eta: Eta
    proposer: str
    segmentation: str
    retrieval: str | None
    target: str
    drafter: str | None
    rounds: int
    drafted_tokens: int
    accepted_tokens: int
    compress_s: float
    prefill_s: float
    time_to_first_token_s: float
    decode_s: float
    propose_s: float
    score_s: float
    verify_s: float
    tokens: int
    cache_bytes: int
    cached_prompt_tokens: int = 0
    cached_drafter_tokens: int = 0
    draft_lm: str | None = None
    query_coverage: float | None = None
    unenforced: tuple[str, ...] = ()
    scored_with_target: bool | None = None
    kernels: str = "none"

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted share of the drafted tokens; None when nothing was drafted."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else None

    @property
    def tokens_per_round(self) -> float:
        """Output tokens per pass of the target."""
        return self.tokens / self.rounds if self.rounds else 0.0

    @property
    def decode_tps(self) -> float:
        """Output tokens per second of decoding."""
        return self.tokens / self.decode_s if self.decode_s else 0.0


# --- what was seen of an answer (`trace=True`) ----------------------------------------------------------------------
# Probabilities are before truncation (top-k, top-p, min-p) and before the mask of structured output. Greedy ones are at
# T = 1. None says that the distribution was not formed for the token, because nothing asked for it.

Origin = Literal["drafter", "draft_lm", "prompt_lookup", "other", "corrected", "bonus", "target"]
"""Where an output token came from.

A draft that was accepted: of the "drafter", of the "draft_lm", copied by "prompt_lookup", or of an "other" proposer.
"corrected": it replaces a rejected draft token. "bonus": it was added behind a draft that was accepted whole.
"target": nothing had been drafted.
"""


class Candidate(_Output):
    """A token that a distribution finds probable."""

    token_id: int
    token: str
    probability: float


class RejectedToken(_Output):
    """A draft token that the law did not let stand, and the text of the draft behind it, which went with it."""

    token_id: int
    token: str
    p: float
    q: float | None
    p_hat: float | None
    discarded: str


class TracedToken(_Output):
    """An output token.

    Attributes:
        token: its own text; the name of a control token.
        text: what it added to the answer: "" for the first bytes of a character, which its last token brings.
        p, q, p_hat: its probability for the target, for the drafter, and in the augmented target distribution.
        top_p, top_q, top_p_hat: what each of them finds most probable, best first.
        rejected: what it replaces.
    """

    token_id: int
    token: str
    text: str
    origin: Origin
    p: float
    q: float | None
    p_hat: float | None
    top_p: tuple[Candidate, ...]
    top_q: tuple[Candidate, ...] = ()
    top_p_hat: tuple[Candidate, ...] = ()
    rejected: RejectedToken | None = None

    @property
    def changed_by_retrieval(self) -> bool:
        """Whether p_hat has another best token than p."""
        return bool(self.top_p_hat) and self.top_p_hat[0].token_id != self.top_p[0].token_id


class TracedRound(_Output):
    """One round: its output, how much was drafted and accepted, and its seconds; `elapsed_s` counts from the first."""

    tokens: tuple[TracedToken, ...]
    drafted: int
    accepted: int
    propose_s: float
    score_s: float
    verify_s: float
    elapsed_s: float


class Trace(_Output):
    """Everything that was seen of one answer: the question, the documents, the settings, and each round."""

    question: str
    contexts: tuple[str, ...]
    settings: dict[str, Any]
    rounds: tuple[TracedRound, ...]

    @property
    def tokens(self) -> tuple[TracedToken, ...]:
        """The output tokens, in order."""
        return tuple(token for each in self.rounds for token in each.tokens)


# --- the answer -----------------------------------------------------------------------------------------------------


class CompletionChunk(_Output):
    """A piece of a streamed answer. The last one carries `finish_reason`, `usage`, `stats` and the tool calls.

    `text` never shows a tool call, not even one that is cut off (`invalid_tool_calls`); `token_ids` holds everything.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    stats: DecodeStats | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()


class Completion(_Output):
    """A whole answer. `token_ids` holds the eos token and the tool calls, too; `text` shows neither.

    Calls that cannot be made are `invalid_tool_calls`; where `max_new_tokens` cut the last of them, `finish_reason` is
    "length" even if calls before it are whole.
    `trace` is what was recorded where the request asked for it; it is left out when an answer is serialised.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    stats: DecodeStats
    retrieved: tuple[RetrievedChunk, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()
    trace: Trace | None = Field(default=None, exclude=True, repr=False)

    @classmethod
    def join(
        cls,
        chunks: Sequence[CompletionChunk],
        retrieved: tuple[RetrievedChunk, ...] = (),
        trace: Trace | None = None,
    ) -> Completion:
        """Put the pieces of a finished stream together."""
        last = chunks[-1]
        if last.finish_reason is None or last.usage is None or last.stats is None:
            raise ValueError("the stream has not ended: its last piece carries finish_reason, usage and stats")
        return cls(
            text="".join(chunk.text for chunk in chunks),
            token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
            finish_reason=last.finish_reason,
            usage=last.usage,
            stats=last.stats,
            retrieved=retrieved,
            tool_calls=last.tool_calls,
            invalid_tool_calls=last.invalid_tool_calls,
            trace=trace,
        )
