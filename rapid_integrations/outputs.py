"""Results of a request. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rapid_integrations.config import Eta

FinishReason = Literal["eos", "stop", "length", "tool_calls", "abstained"]
"""Why an answer ended: with an end token, with a stop string, or at the token limit. "tool_calls" means that it holds
calls and was not cut within one. "abstained" means that `abstain_text` takes its place."""


class _Output(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(_Output):
    """Token counts. `prompt_tokens` is the length of the target's prompt, `drafter_prompt_tokens` of the drafter's."""

    prompt_tokens: int
    completion_tokens: int
    drafter_prompt_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Sum of the target's prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


class ReadAhead(_Output):
    """The result of `RapidEngine.read`.

    Attributes:
        tokens: the tokens that the prompts of all questions about the documents begin with. They have been prefilled.
        cached_tokens: how many of them were cached before.
        kv_bytes: bytes of their keys and values.
        in_memory: whether the engine's prefix cache holds them, so that the next question need not read them.
        on_disk: whether a file in `prefix_cache_dir` holds them, or more than nine tenths of them.
        seconds: the time that reading took, with the indexing for retrieval and the writing to disk.
    """

    tokens: int
    cached_tokens: int
    kv_bytes: int
    in_memory: bool
    on_disk: bool
    seconds: float


class ToolCall(_Output):
    """A call of one of the request's tools. `id` comes from the model if its format has one, else it is generated."""

    id: str
    name: str
    arguments: dict[str, Any]


class InvalidToolCall(_Output):
    """A tool call that cannot be made: it was cut off, is not JSON, names an unknown tool, or is one call too many.

    `name` is the tool's name, or None if it cannot be read. `arguments` is the text of the arguments as far as they
    were written. `error` says what is wrong.
    """

    name: str | None
    arguments: str
    error: str


class RetrievedChunk(_Output):
    """A chunk of the context that the drafter read. `start` and `end` are character offsets into its context span."""

    context: int
    start: int
    end: int
    text: str
    tokens: int
    score: float | None


class Source(_Output):
    """A passage of a context that a sentence of the answer rests on.

    Attributes:
        answer_start, answer_end: the sentence, in characters of the answer's text.
        context: the number of the context span, from 0.
        start, end: the passage, in characters of that context.
        text: the passage's text.
        label: what the prompt writes before the passage ("Source 3:", a file and a page); None without such a label.
        score: the share of the sentence's distinctive words that this passage holds and better ones do not, in (0, 1].
    """

    answer_start: int
    answer_end: int
    context: int
    start: int
    end: int
    text: str
    label: str | None
    score: float


class RemoteDrafting(_Output):
    """What a request exchanged with a drafter on another machine (`RemoteDrafter`).

    Attributes:
        url: the server.
        calls: how often the request asked it for rows or for a draft.
        round_trips: HTTP requests that carried them. One may carry the calls of several requests.
        sent_bytes, received_bytes: bodies of the HTTP requests and their answers, of a shared one this request's part.
        waited_s: seconds in which the request waited for it.
        rows: distributions that it has sent.
        best: how many of the best tokens of each were sent; 0 if all were.
        distance: total variation distance between the q that was used and the drafter's full q at T = 1, the mean over
            `rows`; 0 for full rows, None before the first row.
        target_from: the first output token that follows the law "target" because the server was lost; None if it was
            not lost.
        lost: why it was lost.
    """

    url: str
    calls: int = 0
    round_trips: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    waited_s: float = 0.0
    rows: int = 0
    best: int = 0
    distance: float | None = None
    target_from: int | None = None
    lost: str | None = None


class DecodeStats(_Output):
    """Statistics of one answer. Times are in seconds.

    - `law` is the distribution that the output followed. `segmentation` says how the context was found in the prompt:
      "explicit", "delimiters", "heuristic", "plain", or the name that the prompt's maker gave.
    - `retrieval` says whose scores chose the drafter's chunks ("embedder", with or without
      the words of the question, "words", "reranker", "retriever", "pipeline"). It is "whole" if the drafter read
      everything, and None without a drafter or a context.
    - `draft_lm` is the model that only proposed, if there was one, and `draft_head` the trained head.
    - `queued_s` is the time until there was memory for the KV caches. `prefill_s` covers all models. `decode_s`
      runs from the end of the prefill to the last token. It is the sum of `propose_s` (drafting), `score_s` (the
      drafter's other passes), `verify_s` (the target's passes) and the rest (sampling, text, and what passes with other
      requests took for them). Of a pass that several requests share, each counts its share of the rows.
    - `cached_prompt_tokens` and `cached_drafter_tokens` count the tokens of the two prompts that came from the prefix
      cache and were not prefilled.
    - `query_coverage` is the share of the question's distinctive words in the document that also occur in the retrieved
      text. It is None if nothing was left out.
    - `answerable` is the probability that the documents answer the question, as far as retrieval can tell
      (`compression.answerable`). It is None for a prompt without documents. Without `abstain_below` it is also None
      if nothing was left out, or the request had no drafter.
    - `unenforced` lists the parts of a JSON schema that a grammar cannot express. Complete answers and calls are
      checked against them.
    - `kernels` names the kernels that computed the target's steps: "avx512_bf16", "avx512_vnni", "avx2_vnni", "avx2",
      "neon_bf16", "neon_dot", "neon", "compiled" if they were compiled on this machine, or "none (reason)" if PyTorch's
      operators did, which take 2.5 times as long.
    - `kv_dtype` is "int8" if the target stored keys and values in eight bits, and otherwise the dtype they had.
    - `sparse_prefill` is the threshold of the sparse attention with which prompts were read, None if it was dense.
    - `chunk_cache` is "target" if the drafter took the target's rows of the retrieved chunks, and "view" if it read
      them in place. `cached_drafter_tokens` counts them, too.
    - `scored_with_target` says whether target and drafter read each draft in one pass, which reads shared weights once.
      `verify_s` then counts both. None if the law needs no drafter.
    - `remote` is what was exchanged with a drafter on another machine; None without one.
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
    draft_head: str | None = None
    query_coverage: float | None = None
    answerable: float | None = None
    unenforced: tuple[str, ...] = ()
    scored_with_target: bool | None = None
    kernels: str = "none"
    kv_dtype: str = "none"
    sparse_prefill: float | None = None
    chunk_cache: str = "off"
    queued_s: float = 0.0
    remote: RemoteDrafting | None = None

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


# --- trace of an answer (`trace=True`) ------------------------------------------------------------------------------
# Probabilities are before truncation (top-k, top-p, min-p) and before the mask of structured output. Greedy ones are at
# T = 1. None means that the distribution was not computed for the token, because nothing needed it.

Origin = Literal["drafter", "draft_lm", "prompt_lookup", "other", "corrected", "bonus", "target"]
"""The source of an output token.

- "drafter", "draft_lm", "prompt_lookup", "other": the token is an accepted draft token of that proposer.
- "corrected": it replaces a rejected draft token.
- "bonus": it was added after a draft that was accepted in full.
- "target": nothing had been drafted.
"""


class Candidate(_Output):
    """One of the most probable tokens of a distribution."""

    token_id: int
    token: str
    probability: float


class RejectedToken(_Output):
    """A rejected draft token. `discarded` is the text of the draft after it, which was dropped too."""

    token_id: int
    token: str
    p: float
    q: float | None
    p_hat: float | None
    discarded: str


class TracedToken(_Output):
    """An output token.

    Attributes:
        token: its own text, or the name of a control token.
        text: the text that it added to the answer. If several tokens form one character, the last one has it.
        p, q, p_hat: its probability under the target, the drafter, and the augmented target distribution.
        top_p, top_q, top_p_hat: the most probable tokens of each distribution, best first.
        rejected: the draft token that it replaces.
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
        """Whether the most probable token of p_hat differs from that of p."""
        return bool(self.top_p_hat) and self.top_p_hat[0].token_id != self.top_p[0].token_id


class TracedRound(_Output):
    """One round: its output, its numbers of drafted and accepted tokens, and its times in seconds.

    `elapsed_s` counts from the first round.
    """

    tokens: tuple[TracedToken, ...]
    drafted: int
    accepted: int
    propose_s: float
    score_s: float
    verify_s: float
    elapsed_s: float


class Trace(_Output):
    """The record of one answer: the question, the documents, the settings, and each round."""

    question: str
    contexts: tuple[str, ...]
    settings: dict[str, Any]
    rounds: tuple[TracedRound, ...]

    @property
    def tokens(self) -> tuple[TracedToken, ...]:
        """The output tokens, in order."""
        return tuple(token for each in self.rounds for token in each.tokens)

    def up_to(self, tokens: int) -> Trace:
        """Return the record of the rounds whose tokens are all among the first `tokens`."""
        ends = accumulate(len(each.tokens) for each in self.rounds)
        return self.model_copy(update={"rounds": self.rounds[: sum(end <= tokens for end in ends)]})


# --- the answer -----------------------------------------------------------------------------------------------------


class CompletionChunk(_Output):
    """A piece of a streamed answer. The last one carries `finish_reason`, `usage`, `stats`, tool calls and `sources`.

    `text` never contains a tool call, not even one that was cut off (`invalid_tool_calls`). `token_ids` holds all
    tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    stats: DecodeStats | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()
    sources: tuple[Source, ...] = ()


class Completion(_Output):
    """A whole answer. `token_ids` includes the eos token and the tool calls; `text` includes neither.

    `retrieved` are the chunks that the drafter read, and `sources` the passages that each sentence rests on. Calls that
    cannot be made are in `invalid_tool_calls`. If `max_new_tokens` cut the last call, `finish_reason` is
    "length" even if earlier calls are complete. `trace` is the record that the request asked for with `trace=True`;
    serialisation leaves it out.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    stats: DecodeStats
    retrieved: tuple[RetrievedChunk, ...] = ()
    sources: tuple[Source, ...] = ()
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
        """Join the pieces of a finished stream."""
        last = chunks[-1] if chunks else CompletionChunk(text="", token_ids=())
        if last.finish_reason is None or last.usage is None or last.stats is None:
            raise ValueError("the stream has not ended: its last piece carries finish_reason, usage and stats")
        return cls(
            text="".join(chunk.text for chunk in chunks),
            token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
            finish_reason=last.finish_reason,
            usage=last.usage,
            stats=last.stats,
            retrieved=retrieved,
            sources=last.sources,
            tool_calls=last.tool_calls,
            invalid_tool_calls=last.invalid_tool_calls,
            trace=trace,
        )
