"""`RemoteDrafter`: a drafter on another machine, for `RapidEngine(target, drafter=RemoteDrafter(url))`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.errors import CacheError, ConfigurationError
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.server.remote.back_end import BackEnd, Described
from rapid_integrations.server.remote.best_rows import BEST
from rapid_integrations.server.remote.link import Link, require_address
from rapid_integrations.server.remote.openai_back_end import OpenAIBackEnd
from rapid_integrations.server.remote.rapid_back_end import RapidBackEnd
from rapid_integrations.server.remote.scorer import OnLost, RemoteScorer
from rapid_integrations.server.remote.sglang_back_end import SGLangBackEnd

Kind = Literal["rapid", "openai", "sglang"]

ROUND_S, OPEN_S = 30.0, 600.0


class RemoteDrafter:
    """A model on another machine that drafts for a target here.

    It reads the drafter's prompt (the retrieved text) and scores or writes drafts. q is the softmax over the `best`
    tokens of each of its distributions, and 0 elsewhere. That is a law of its own, and the output follows it exactly:
    a drafter on this machine that is cut to as many tokens gives the same answers. `stats.remote.distance` says how far
    it is from the full q.

    Args:
        url: the server, as in "http://10.0.0.2:8080".
        kind: "rapid" is another RAPID server (`rapid serve`), whose target drafts. "openai" is a server with
            /v1/completions that takes token ids and returns log-probabilities (vLLM, llama.cpp). "sglang" is SGLang's
            own /generate.
        api_key: sent as a bearer token.
        model: the model's name at a server with several; None takes the first that it lists.
        best: how many of the best tokens of each distribution are sent. 0 sends all, which only "rapid" can. Most
            servers of the other kinds allow at most 20.
        timeout: seconds that a round may take.
        open_timeout: seconds in which the prompt has to be read.
        on_lost: "error" raises `RemoteError` if the server is lost. "target" finishes the answer under the law
            "target"; `stats.remote.target_from` says from which token on.
        num_parameters: the size of the model, if the server does not say it. None counts as larger than the target.
        context_window: the same for its context window; None trusts that the prompt fits.

    Raises:
        ConfigurationError: an argument is invalid.
        MissingExtraError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        kind: Kind = "rapid",
        *,
        api_key: str | None = None,
        model: str | None = None,
        best: int = BEST,
        timeout: float = ROUND_S,
        open_timeout: float = OPEN_S,
        on_lost: OnLost = "error",
        num_parameters: int | None = None,
        context_window: int | None = None,
    ) -> None:
        for name, given, allowed in (("kind", kind, get_args(Kind)), ("on_lost", on_lost, get_args(OnLost))):
            if given not in allowed:
                raise ConfigurationError(
                    f"RemoteDrafter({name}={given!r}): it is one of {', '.join(map(repr, allowed))}"
                )
        if type(best) is not int or best < 0 or (best == 0 and kind != "rapid"):
            raise ConfigurationError(
                f"RemoteDrafter(best={best!r}): give the number of tokens of each distribution, at least 1. Only "
                'kind="rapid" sends whole distributions (best=0)'
            )
        require_address(url, timeout)
        self.url, self.kind, self.model, self.best, self.timeout = url, kind, model, best, timeout
        self.open_timeout, self.on_lost = open_timeout, on_lost
        self.num_parameters, self.context_window = num_parameters, context_window
        self._api_key = api_key

    def __repr__(self) -> str:
        return f"RemoteDrafter({self.url!r}, kind={self.kind!r})"

    def connect(self, target: str, vocabulary: Vocabulary, weight_bytes: int) -> RemoteModel:
        """Return the server's model; see `DrafterService`."""
        link = Link(self.url, self._api_key, self.timeout)
        back_end: BackEnd
        if self.kind == "rapid":
            back_end = RapidBackEnd(link, self.best, self.open_timeout)
        elif self.kind == "openai":
            back_end = OpenAIBackEnd(link, self.best, self.model, self.open_timeout)
        else:
            back_end = SGLangBackEnd(link, self.best, self.model, self.open_timeout)
        try:
            described = back_end.describe()
            back_end.require_vocabulary(vocabulary, target)
        except BaseException:
            link.close()
            raise
        return RemoteModel(self, back_end, described, weight_bytes)


class RemoteModel:
    """A server's model; see `ModelElsewhere` for the attributes."""

    device = torch.device("cpu")  # where its rows arrive
    dtype = torch.float32
    kernels = "none (on another machine)"
    rows_together = 0
    passes_together = False
    prompts_together = False
    reads_trees = False

    def __init__(self, drafter: RemoteDrafter, back_end: BackEnd, described: Described, weight_bytes: int) -> None:
        self._back_end, self._on_lost = back_end, drafter.on_lost
        self.name = f"{described.name} at {back_end.url}"
        self.context_window = drafter.context_window or described.context_window or sys.maxsize
        self.vocab_size = described.vocab_size or sys.maxsize  # of rows of the best tokens, the width is not known
        self.num_parameters = drafter.num_parameters or described.num_parameters or sys.maxsize
        self.weight_bytes = described.weight_bytes or weight_bytes
        self.kv_bytes_per_token = described.kv_bytes_per_token or 0

    def fingerprint(self) -> str:
        """Raise an error: nobody here knows the weights.

        Raises:
            CacheError: always.
        """
        raise CacheError(f"the weights of {self.name} are on another machine")

    def begin(self, prompt_ids: Sequence[int], new_tokens: int, rules: Rules) -> RemoteScorer:
        """Send a prompt; see `ModelElsewhere`.

        Raises:
            ConfigurationError: the request has a penalty that needs logits, and the server gives log-probabilities.
        """
        if not self._back_end.gives_logits and rules.penalty.repetition != 1.0:
            raise ConfigurationError(
                f"repetition_penalty={rules.penalty.repetition:g} divides logits, and {self.name} gives probabilities "
                'only. Use frequency_penalty or presence_penalty, or a drafter of kind="rapid"'
            )
        text = self._back_end.text(prompt_ids, new_tokens, rules.law, rules.vocab_size, rules.eos_token_ids)
        return RemoteScorer(self._back_end, text, rules, len(prompt_ids), self._on_lost)

    def new_cache(self, capacity: int) -> KVCache:
        """Raise an error: its caches are on its machine.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(f"{self.name} is on another machine: it can draft here, and nothing else")

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Raise an error: its passes are made on its machine.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(f"{self.name} is on another machine: it can draft here, and nothing else")

    def close(self) -> None:
        """End the connection; safe to call again."""
        self._back_end.close()
