"""What the answers of both endpoints have in common: their ids, usage, log-probabilities and RAPID's own fields."""

from __future__ import annotations

import json
import math
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from rapid_integrations.outputs import Candidate, Completion, CompletionChunk, Source, TracedToken
from rapid_integrations.server.choices import Choices, Event, Piece, Provisional, Reading
from rapid_integrations.server.requests import ChatRequest, CompletionRequest
from rapid_integrations.server.state import ServerState

_IMPOSSIBLE = -9999.0  # OpenAI's log-probability of a token that cannot come
_FINISH = {"eos": "stop", "stop": "stop", "length": "length", "tool_calls": "tool_calls", "abstained": "stop"}
_PROPOSED = ("drafter", "draft_lm", "prompt_lookup", "other")


class AnswerFormat(ABC):
    """Writes the answers to one request, as a whole or piece by piece.

    Args:
        state: the server's.
        body: the request.
        choices: the running answers.
    """

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, state: ServerState, body: ChatRequest | CompletionRequest, choices: Choices) -> None:
        self._state, self._body, self._choices = state, body, choices
        self._head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": state.model_name,
        }
        self._last: dict[int, CompletionChunk] = {}
        options = body.stream_options
        self._with_usage = options is not None and bool(options.include_usage)

    # --- what the endpoints differ in -----------------------------------------------------------------------------

    def opening(self) -> list[dict[str, Any]]:
        """Return the events before the first piece."""
        return []

    @abstractmethod
    def _pieces(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the choices of the events of a piece; the last one holds the finish reason, if there is one."""

    @abstractmethod
    def _choice(self, index: int, completion: Completion, tokens: Sequence[TracedToken]) -> dict[str, Any]:
        """Return one choice of the whole answer."""

    # --- events -----------------------------------------------------------------------------------------------------

    def events(self, event: Event) -> list[dict[str, Any]]:
        """Return the events of a piece of an answer, of progress, or of a provisional piece."""
        if isinstance(event, Provisional):
            return [self._event([], rapid={"provisional": {"text": event.text}, "index": event.index})]
        if isinstance(event, Reading):
            if not self._body.options.progress:
                return []
            progress = {"stage": event.stage, "done": event.done, "total": event.total}
            return [self._event([], rapid={"progress": progress, "index": event.index})]
        found = [self._event([choice]) for choice in self._pieces(event)]
        if found and self._body.options.trace:
            found[0]["rapid"] = {"tokens": [_traced(token) for token in event.tokens]}
        if event.chunk.finish_reason is not None:
            self._last[event.index] = event.chunk
            if (rapid := self._rapid(event.index, event.chunk)) is not None:
                found[-1]["rapid"] = {**found[-1].get("rapid", {}), **rapid}
        return found

    def closing(self) -> list[dict[str, Any]]:
        """Return the events after the last piece."""
        return [{**self._event([]), "usage": self._usage()}] if self._with_usage else []

    def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the answers as one object."""
        choices, rapid = [], None
        for index, stream in enumerate(self._choices.streams):
            own = [piece for piece in pieces if piece.index == index]
            completion = Completion.join([piece.chunk for piece in own], stream.prepared.retrieved)
            self._last[index] = own[-1].chunk
            tokens = [token for piece in own for token in piece.tokens]
            choices.append(self._choice(index, completion, tokens))
            if (found := self._rapid(index, own[-1].chunk)) is not None:
                if self._body.options.trace:
                    found["tokens"] = [_traced(token) for token in tokens]
                choices[-1]["rapid"] = found
                rapid = rapid or found
        answer = {**self._head, "object": self.whole_object, "choices": choices, "usage": self._usage()}
        if len(choices) == 1:  # of several answers, each has its own
            choices[0].pop("rapid", None)
            answer |= {} if rapid is None else {"rapid": rapid}
        return answer

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        usage = {"usage": None} if self._with_usage else {}
        return {**self._head, "object": self.chunk_object, "choices": choices, **usage, **more}

    def _rapid(self, index: int, last: CompletionChunk) -> dict[str, Any] | None:
        """Return RAPID's own fields of an answer; None if the request has none."""
        options = self._body.rapid
        if options is None:
            return None
        found: dict[str, Any] = {}
        if options.statistics and last.stats is not None:
            stats = last.stats
            found["statistics"] = {
                **stats.model_dump(mode="json"),
                "acceptance_rate": stats.acceptance_rate,
                "tokens_per_round": stats.tokens_per_round,
                "decode_tps": stats.decode_tps,
            }
        if options.sources:
            prompt = self._choices.asks[index].prompt
            passages = self._sources(index, last) or self._choices.streams[index].prepared.retrieved
            found["sources"] = [prompt.source(each) for each in passages]
        if last.invalid_tool_calls:
            found["invalid_tool_calls"] = [call.model_dump() for call in last.invalid_tool_calls]
        return found

    def _sources(self, index: int, last: CompletionChunk) -> tuple[Source, ...]:
        """Return the passages that the sentences of an answer rest on, with places in its text as it is sent."""
        return last.sources

    def _usage(self) -> dict[str, Any]:
        """Return the number of tokens. A prompt counts once, however many answers it has."""
        usages = {index: chunk.usage for index, chunk in self._last.items() if chunk.usage is not None}
        asks = self._choices.asks
        first = [index for index in usages if index == 0 or asks[index].prompt is not asks[index - 1].prompt]
        prompt = sum(usages[index].prompt_tokens for index in first)
        completion = sum(usage.completion_tokens for usage in usages.values())
        stats = [self._last[index].stats for index in first]
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {
                "cached_tokens": sum(each.cached_prompt_tokens for each in stats if each is not None)
            },
        }

    # --- tokens -----------------------------------------------------------------------------------------------------

    def _shown(self, tokens: Sequence[TracedToken]) -> list[TracedToken]:
        """Return the tokens without the end token."""
        return [token for token in tokens if token.token_id not in self._state.engine.vocabulary.eos_token_ids]


def finish_of(reason: str | None) -> str | None:
    """Return OpenAI's word for the reason why an answer ended."""
    return None if reason is None else _FINISH[reason]


def log_of(token: TracedToken) -> float:
    """Return the log-probability of a token under the law, before truncation."""
    return _log(token.p if token.p_hat is None else token.p_hat)


def best_of(token: TracedToken, count: int) -> list[tuple[Candidate, float]]:
    """Return the most probable tokens of the law in a token's place, with their log-probabilities."""
    best: tuple[Candidate, ...] = token.top_p_hat or token.top_p
    return [(each, _log(each.probability)) for each in best[:count]]


def arguments_text(arguments: dict[str, Any]) -> str:
    """Return the arguments of a call as OpenAI's API writes them."""
    return json.dumps(arguments, ensure_ascii=False)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else _IMPOSSIBLE


def _traced(token: TracedToken) -> dict[str, Any]:
    """Return who proposed a token and who decided it."""
    proposed = token.origin in _PROPOSED
    return {
        "text": token.text,
        "proposer": token.origin if proposed else None,
        "decided": "accepted" if proposed else token.origin,
        "p": token.p,
        "q": token.q,
        "p_hat": token.p_hat,
        "changed_by_retrieval": token.changed_by_retrieval,
    }
