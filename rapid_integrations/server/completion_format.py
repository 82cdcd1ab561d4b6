"""The answers of /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rapid_integrations.outputs import Completion, TracedToken
from rapid_integrations.server.answer_format import AnswerFormat, best_of, finish_of, log_of
from rapid_integrations.server.choices import Choices, Piece
from rapid_integrations.server.requests import CompletionRequest
from rapid_integrations.server.state import ServerState


class CompletionFormat(AnswerFormat):
    """Writes answers as texts.

    Args:
        state, body, choices: see `AnswerFormat`.
        echoed: the prompt of each answer if it comes before the answer, otherwise nothing.
    """

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, state: ServerState, body: CompletionRequest, choices: Choices, echoed: Sequence[str]) -> None:
        super().__init__(state, body, choices)
        self._echoed = echoed
        self._offsets = [len(text) for text in echoed]  # of the next token, in characters

    def opening(self) -> list[dict[str, Any]]:
        """Return an event for each answer that repeats its prompt."""
        return [
            self._event([{"index": index, "text": text, "finish_reason": None, "logprobs": None}])
            for index, text in enumerate(self._echoed)
            if text
        ]

    def _pieces(self, piece: Piece) -> list[dict[str, Any]]:
        finish = finish_of(piece.chunk.finish_reason)
        logprobs = self._logprobs(piece.index, piece.tokens)
        return [{"index": piece.index, "text": piece.chunk.text, "finish_reason": finish, "logprobs": logprobs}]

    def _choice(self, index: int, completion: Completion, tokens: Sequence[TracedToken]) -> dict[str, Any]:
        return {
            "index": index,
            "text": self._echoed[index] + completion.text,
            "finish_reason": finish_of(completion.finish_reason),
            "logprobs": self._logprobs(index, tokens),
        }

    def _logprobs(self, index: int, tokens: Sequence[TracedToken]) -> dict[str, Any] | None:
        assert isinstance(self._body, CompletionRequest)
        count = self._body.logprobs
        if count is None:
            return None
        shown = self._shown(tokens)
        offsets = []
        for token in shown:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token.text)
        return {
            "tokens": [token.token for token in shown],
            "token_logprobs": [log_of(token) for token in shown],
            "top_logprobs": [{each.token: log for each, log in best_of(token, count)} for token in shown],
            "text_offset": offsets,
        }
