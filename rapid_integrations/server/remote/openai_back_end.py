"""A server with OpenAI's /v1/completions as a drafter: vLLM, or llama.cpp's `llama-server`.

A draft is scored by a batch of prompts with one new token each, which all begin alike: servers reuse the KV cache of a
prompt's beginning. vLLM's `prompt_logprobs` would take one prompt, but leave that cache unused and return rows for the
whole text. The text is sent with every call, as these servers keep none.

The answers are read as vLLM writes them ({"top_logprobs": [{"token_id:17": -0.3, ...}, ...]}) and as llama.cpp does
({"content": [{"id": 17, "top_logprobs": [{"id": 17, "logprob": -0.3}, ...]}, ...]}).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from rapid_integrations.errors import RapidError, RemoteError
from rapid_integrations.server.remote.back_end import Described, Opened, Received
from rapid_integrations.server.remote.batches import Batches
from rapid_integrations.server.remote.foreign_servers import Best, ForeignServer, get, read
from rapid_integrations.server.remote.link import Link

_AS_ID = "token_id:"

Kind = tuple[int, float, float | None]
"""New tokens, temperature, and the time limit: what prompts of one HTTP request share."""


@dataclass(frozen=True)
class _Choice:
    """What followed a prompt: the tokens, the best tokens at each position, and the bytes exchanged."""

    tokens: list[int]
    best: list[Best]
    sent: int
    received: int


class OpenAIBackEnd(ForeignServer):
    """See `ForeignServer`. Without a model's name, the first one is taken."""

    def __init__(self, link: Link, best: int, model: str | None, open_s: float) -> None:
        link.url = link.url.removesuffix("/v1")
        super().__init__(link, best, model, open_s)
        self.prompts: Batches[Kind, list[int], _Choice] = Batches(self._send, lambda: self.open_texts < 2)

    def describe(self) -> Described:
        """Ask the server for its models, and choose one."""
        found = get(self.link, "/v1/models")
        try:
            listed = found["data"]
            chosen = next(each for each in listed if self._model in (None, each["id"], each.get("root")))
        except StopIteration:
            raise RemoteError(f"{self.url} has no model {self._model!r}", code="answer") from None
        except (KeyError, TypeError):
            raise RemoteError(f"{self.url}/v1/models is no list of models", code="answer") from None
        self._model = str(chosen["id"])
        meta = chosen.get("meta") or {}  # llama.cpp's
        return Described(
            name=self._model,
            vocab_size=meta.get("n_vocab"),
            context_window=chosen.get("max_model_len") or meta.get("n_ctx") or meta.get("n_ctx_train"),
            num_parameters=meta.get("n_params"),
            weight_bytes=meta.get("size"),
        )

    async def read_prompt(self, tokens: list[int], timeout: float, vocab_size: int) -> Opened:
        """See `ForeignServer`."""
        (choice,) = await self.prompts.ask((1, 0.0, timeout), tokens)
        self.rows(choice.best[:1], vocab_size)  # refuses what gives no ids before a draft does
        return Opened(0, choice.sent, choice.received)

    async def continued(
        self, tokens: list[int], draft: list[int], have: int, ahead: int, temperature: float, vocab_size: int
    ) -> Received:
        """See `ForeignServer`."""
        short = [tokens + draft[:place] for place in range(have, len(draft))]
        last = self.prompts.ask((1 + ahead, temperature, None), tokens + draft)
        found = await asyncio.gather(last, *([self.prompts.ask((1, 0.0, None), *short)] if short else []))
        (longest,), others = found[0], found[1] if short else []
        choices = [*others, longest]
        rows, outside = self.rows([choice.best[0] for choice in others] + longest.best[: 1 + ahead], vocab_size)
        trips = 2 if short and ahead else 1
        sent, received = sum(choice.sent for choice in choices), sum(choice.received for choice in choices)
        return Received(longest.tokens[:ahead], rows, outside, sent, received, trips)

    async def _send(self, kind: Kind, prompts: list[list[int]]) -> list[_Choice | RapidError]:
        tokens, temperature, timeout = kind
        asked = {
            "model": self._model,
            "prompt": prompts,
            "max_tokens": tokens,
            "logprobs": self.best,
            "return_tokens_as_token_ids": True,
            "temperature": temperature,
            # What a server or a model's files set otherwise, it would draw from.
            "top_k": self.best,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "ignore_eos": True,  # where to end is decided here, and all rows are needed
            "cache_prompt": True,
        }
        body = await self.link.exchange("/v1/completions", json=asked, timeout=timeout)
        answer = read(body, self.url)
        choices = sorted(answer["choices"], key=lambda each: int(each.get("index", 0)))
        if len(choices) != len(prompts):
            raise RemoteError(
                f"{self.url}/v1/completions gave {len(choices)} answers to {len(prompts)} prompts: it has to take an "
                "array of arrays of token ids",
                code="answer",
            )
        sent = sum(len(prompt) for prompt in prompts) * 6 // len(prompts)  # what an id takes as JSON, about
        return [_choice(each, sent, len(body) // len(prompts)) for each in choices]


def _choice(said: dict[str, Any], sent: int, received: int) -> _Choice:
    logprobs = said.get("logprobs") or {}
    if "content" in logprobs:  # llama.cpp
        content = logprobs["content"]
        tokens = [int(each["id"]) for each in content]
        best = [[(int(one["id"]), float(one["logprob"])) for one in each["top_logprobs"]] for each in content]
        return _Choice(tokens, best, sent, received)
    tokens = [_id(token) for token in logprobs.get("tokens") or ()]
    best = [
        [(_id(token), float(value)) for token, value in (each or {}).items()]
        for each in logprobs.get("top_logprobs") or ()
    ]
    return _Choice(tokens, best, sent, received)


def _id(token: str) -> int:
    if not token.startswith(_AS_ID):
        raise RemoteError(
            f"the server names tokens by their text ({token!r}), which does not tell which token it is: it has to know "
            "return_tokens_as_token_ids, as vLLM does",
            code="answer",
        )
    return int(token.removeprefix(_AS_ID))
