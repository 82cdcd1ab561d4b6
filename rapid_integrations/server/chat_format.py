"""The answers of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rapid_integrations.models.thinking import Thinking
from rapid_integrations.models.thinking_marks import Marks, marks_of
from rapid_integrations.outputs import Candidate, Completion, CompletionChunk, Source, TracedToken
from rapid_integrations.server.answer_format import AnswerFormat, arguments_text, best_of, finish_of, log_of
from rapid_integrations.server.choices import Choices, Piece
from rapid_integrations.server.requests import ChatRequest
from rapid_integrations.server.state import ServerState


class ChatFormat(AnswerFormat):
    """Writes answers as messages."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, state: ServerState, body: ChatRequest, choices: Choices) -> None:
        super().__init__(state, body, choices)
        self._thinking = [Thinking(self._marks(index)) for index in range(len(choices.streams))]
        self._answers: dict[int, tuple[Source, ...]] = {}

    def _marks(self, index: int) -> Marks | None:
        assert isinstance(self._body, ChatRequest)
        together = self._body.separate_reasoning is False
        if together or self._choices.asks[index].sampling.structured is not None:
            return None
        return marks_of(self._state.engine.vocabulary, self._choices.streams[index].prepared.target)

    def opening(self) -> list[dict[str, Any]]:
        """Return an event for each answer that says whose message it is."""
        delta = {"role": "assistant", "content": ""}
        return [
            self._event([{"index": index, "delta": delta, "finish_reason": None, "logprobs": None}])
            for index in range(len(self._choices.streams))
        ]

    def _pieces(self, piece: Piece) -> list[dict[str, Any]]:
        thinking, chunk = self._thinking[piece.index].part(piece.chunk)
        self._answers[piece.index] = chunk.sources
        deltas: list[dict[str, Any]] = [{"reasoning_content": thinking}] if thinking else []
        deltas += [{"content": chunk.text}] if chunk.text else []
        if calls := _calls(chunk):
            deltas.append({"tool_calls": [{"index": number, **call} for number, call in enumerate(calls)]})
        if chunk.finish_reason is not None or not deltas:
            deltas.append({} if chunk.finish_reason is not None else {"content": ""})
        choices: list[dict[str, Any]] = [
            {"index": piece.index, "delta": delta, "finish_reason": None, "logprobs": None} for delta in deltas
        ]
        choices[0]["logprobs"] = self._logprobs(piece.tokens)
        choices[-1]["finish_reason"] = _finish(chunk)
        return choices

    def _choice(self, index: int, completion: Completion, tokens: Sequence[TracedToken]) -> dict[str, Any]:
        thinking, completion = self._thinking[index].part(completion)
        self._answers[index] = completion.sources
        calls = _calls(completion)
        message: dict[str, Any] = {"role": "assistant", "content": completion.text or None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        else:
            message["content"] = completion.text
        if thinking:
            message["reasoning_content"] = thinking
        finish = _finish(completion)
        return {"index": index, "message": message, "finish_reason": finish, "logprobs": self._logprobs(tokens)}

    def _sources(self, index: int, last: CompletionChunk) -> tuple[Source, ...]:
        return self._answers[index]

    def _logprobs(self, tokens: Sequence[TracedToken]) -> dict[str, Any] | None:
        assert isinstance(self._body, ChatRequest)
        if not self._body.logprobs:
            return None
        return {
            "content": [
                {
                    **self._entry(token, log_of(token)),
                    "top_logprobs": [self._entry(*each) for each in best_of(token, self._body.top_logprobs or 0)],
                }
                for token in self._shown(tokens)
            ],
            "refusal": None,
        }

    def _entry(self, token: TracedToken | Candidate, logprob: float) -> dict[str, Any]:
        # Bytes and not the text's: a token may be a part of a character, and a client puts them together.
        of = self._state.engine.vocabulary.token_bytes(token.token_id)
        return {"token": token.token, "logprob": logprob, "bytes": list(of)}


def _calls(answer: Completion | CompletionChunk) -> list[dict[str, Any]]:
    """Return the calls of an answer. A call that cannot be made is one too, as the model wrote it, if it has a name."""
    calls = [(call.id, call.name, arguments_text(call.arguments)) for call in answer.tool_calls]
    calls += [(f"call_{n}", call.name, call.arguments) for n, call in enumerate(answer.invalid_tool_calls) if call.name]
    return [
        {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}
        for call, name, arguments in calls
    ]


def _finish(answer: Completion | CompletionChunk) -> str | None:
    finish = finish_of(answer.finish_reason)
    return "tool_calls" if finish == "stop" and _calls(answer) else finish
