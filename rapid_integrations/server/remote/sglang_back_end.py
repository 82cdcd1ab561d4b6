"""SGLang's own /generate as a drafter. It scores a draft in one pass over it, behind a prompt in its cache.

`logprob_start_len` says from which position on it gives log-probabilities. The cache is used up to there, and the first
position given is empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rapid_integrations.errors import RapidError, RemoteError
from rapid_integrations.server.remote.back_end import Described, Opened, Received
from rapid_integrations.server.remote.batches import Batches
from rapid_integrations.server.remote.foreign_servers import Best, ForeignServer, get, read
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


class SGLangBackEnd(ForeignServer):
    """See `ForeignServer`. The model's name is for messages."""

    def __init__(self, link: Link, best: int, model: str | None, open_s: float) -> None:
        super().__init__(link, best, model, open_s)
        self.wishes: Batches[float | None, _Wish, _Generated] = Batches(self._send, lambda: self.open_texts < 2)

    def describe(self) -> Described:
        """Ask the server for its model."""
        said = get(self.link, "/get_model_info")
        if not isinstance(said, dict):
            raise RemoteError(f"{self.url}/get_model_info does not describe a model", code="answer")
        self._model = self._model or str(said.get("model_path") or "SGLang's model")
        return Described(name=self._model)

    async def read_prompt(self, tokens: list[int], timeout: float, vocab_size: int) -> Opened:
        """See `ForeignServer`."""
        (found,) = await self.wishes.ask(timeout, _Wish(tokens, len(tokens) - 1, 1, 0.0))
        return Opened(0, found.sent, found.received)

    async def continued(
        self, tokens: list[int], draft: list[int], have: int, ahead: int, temperature: float, vocab_size: int
    ) -> Received:
        """See `ForeignServer`."""
        wish = _Wish(tokens + draft, len(tokens) + have - 1, 1 + ahead, temperature)
        (found,) = await self.wishes.ask(None, wish)
        rows, outside = self.rows([*found.of_input, *found.of_output[: 1 + ahead]], vocab_size)
        return Received(found.tokens[:ahead], rows, outside, found.sent, found.received)

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
        body = await self.link.exchange("/generate", json=asked, timeout=timeout)
        answer = read(body, self.url)
        found = answer if isinstance(answer, list) else [answer]
        if len(found) != len(wishes):
            raise RemoteError(f"{self.url}/generate gave {len(found)} answers to {len(wishes)} texts", code="answer")
        sent = sum(len(wish.input_ids) for wish in wishes) * 6 // len(wishes)  # what an id takes as JSON, about
        return [_generated(each["meta_info"], sent, len(body) // len(wishes)) for each in found]


def _generated(meta: dict[str, Any], sent: int, received: int) -> _Generated:
    of_input = [_best(each) for each in (meta.get("input_top_logprobs") or [])[1:]]  # the first has no distribution
    of_output = [_best(each) for each in meta["output_top_logprobs"]]
    tokens = [int(each[1]) for each in meta["output_token_logprobs"]]
    return _Generated(of_input, tokens, of_output, sent, received)


def _best(position: list[list[Any]] | None) -> Best:
    return [(int(index), float(value)) for value, index, *_ in position or ()]
