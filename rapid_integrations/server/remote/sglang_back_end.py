"""SGLang's own /generate as a drafter. It scores a draft in one pass over it, behind a prompt in its cache.

`logprob_start_len` says from which position on it gives log-probabilities. The cache is used up to there, and the first
position given is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rapid_integrations.errors import RapidError, RemoteError
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.sampling import Law
from rapid_integrations.server.remote.back_end import Described, Opened, Received
from rapid_integrations.server.remote.batches import Batches
from rapid_integrations.server.remote.foreign_servers import Best, get, read, require_vocabulary, rows_of
from rapid_integrations.server.remote.link import Link


@dataclass(frozen=True)
class _Wish:
    """A text, the first position of which the log-probabilities are given, and how it goes on."""

    input_ids: list[int]
    start: int
    new_tokens: int
    temperature: float


@dataclass(frozen=True)
class _Generated:
    """The best tokens at each position of the text behind `_Wish.start`, the tokens that followed, and theirs."""

    of_input: list[Best]
    tokens: list[int]
    of_output: list[Best]
    sent: int
    received: int


class SGLangBackEnd:
    """See `BackEnd`.

    Args:
        link: to the server.
        best: how many of the best tokens of a row are asked for.
        model: the model's name, for messages; None asks the server.
        open_s: seconds in which a prompt has to be read.
    """

    follows_draws = False
    gives_logits = False

    def __init__(self, link: Link, best: int, model: str | None, open_s: float) -> None:
        self.url, self.best, self.open_s = link.url, best, open_s
        self._link, self._model = link, model
        self.open_texts = 0
        self.wishes: Batches[float | None, _Wish, _Generated] = Batches(self._send, lambda: self.open_texts < 2)

    def describe(self) -> Described:
        """Ask the server for its model."""
        said = get(self._link, "/get_model_info")
        if not isinstance(said, dict):
            raise RemoteError(f"{self.url}/get_model_info does not describe a model", code="answer")
        self._model = self._model or str(said.get("model_path") or "SGLang's model")
        return Described(name=self._model)

    def require_vocabulary(self, vocabulary: Vocabulary, target: str) -> None:
        """Have the server tokenize some texts."""
        require_vocabulary(self._link, self._model, vocabulary, target)

    def text(
        self, prompt_ids: Sequence[int], new_tokens: int, law: Law, vocab_size: int, eos: frozenset[int]
    ) -> SGLangText:
        """Return a text that is not open."""
        return SGLangText(self, self._link, prompt_ids, law.temperature, vocab_size)

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    async def _send(self, timeout: float | None, wishes: list[_Wish]) -> list[_Generated | RapidError]:
        asked = {
            "input_ids": [wish.input_ids for wish in wishes],
            "sampling_params": [
                {
                    "max_new_tokens": wish.new_tokens,
                    "temperature": wish.temperature,
                    "top_k": self.best,
                    "top_p": 1.0,
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                    "ignore_eos": True,
                }
                for wish in wishes
            ],
            "return_logprob": [True] * len(wishes),
            "logprob_start_len": [wish.start for wish in wishes],
            "top_logprobs_num": [self.best] * len(wishes),
        }
        body = await self._link.exchange("/generate", json=asked, timeout=timeout)
        answer = read(body, self.url)
        found = answer if isinstance(answer, list) else [answer]
        if len(found) != len(wishes):
            raise RemoteError(f"{self.url}/generate gave {len(found)} answers to {len(wishes)} texts", code="answer")
        sent = sum(len(wish.input_ids) for wish in wishes) * 6 // len(wishes)  # what an id takes as JSON, about
        return [_generated(each["meta_info"], sent, len(body) // len(wishes)) for each in found]


class SGLangText:
    """See `RemoteText`. The text is kept here."""

    def __init__(
        self, owner: SGLangBackEnd, link: Link, prompt_ids: Sequence[int], temperature: float, vocab_size: int
    ) -> None:
        self._owner, self._link = owner, link
        self._tokens = list(prompt_ids)
        self._temperature, self._vocab_size = temperature, vocab_size
        self._closed = False

    def open(self) -> Future[Opened]:
        """Have the prompt read: the server keeps its KV cache."""
        self._owner.open_texts += 1
        return self._link.start(self._open())

    async def _open(self) -> Opened:
        wish = _Wish(self._tokens, len(self._tokens) - 1, 1, 0.0)
        (found,) = await self._owner.wishes.ask(self._owner.open_s, wish)
        return Opened(0, found.sent, found.received)

    def read(
        self, commit: Sequence[int], draft: Sequence[int], have: int, ahead: int, shares: Sequence[float]
    ) -> Future[Received]:
        """Ask for rows, and for a draft."""
        self._tokens += commit
        start = len(self._tokens) + have - 1
        wish = _Wish([*self._tokens, *draft], start, 1 + ahead, self._temperature if ahead else 0.0)
        return self._link.start(self._read(wish, ahead))

    async def _read(self, wish: _Wish, ahead: int) -> Received:
        (found,) = await self._owner.wishes.ask(None, wish)
        positions = [*found.of_input, *found.of_output[: 1 + ahead]]
        rows, outside = rows_of(positions, self._owner.best, self._vocab_size, self._owner.url)
        return Received(found.tokens[:ahead], rows, outside, found.sent, found.received)

    def close(self) -> None:
        """Forget the text."""
        if not self._closed:
            self._closed = True
            self._owner.open_texts -= 1


def _generated(meta: dict[str, Any], sent: int, received: int) -> _Generated:
    of_input = [_best(each) for each in (meta.get("input_top_logprobs") or [])[1:]]  # the first has no distribution
    of_output = [_best(each) for each in meta["output_top_logprobs"]]
    tokens = [int(each[1]) for each in meta["output_token_logprobs"]]
    return _Generated(of_input, tokens, of_output, sent, received)


def _best(position: list[list[Any]] | None) -> Best:
    return [(int(index), float(value)) for value, index, *_ in position or ()]
