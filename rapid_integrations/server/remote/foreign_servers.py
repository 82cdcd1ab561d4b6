"""What servers of other engines have in common as drafters: they keep no texts, and give log-probabilities."""

from __future__ import annotations

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from rapid_integrations.errors import RapidError, RemoteError, VocabularyMismatchError
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.sampling import Law
from rapid_integrations.server.remote.back_end import Described, Opened, Received
from rapid_integrations.server.remote.best_rows import row_of
from rapid_integrations.server.remote.link import Link

_PROBES = (
    "The quick brown fox jumps over 13 lazy dogs, didn't it?\n\n\tTab  and   spaces.\nWhat the other thing is called "
    "in the long run depends on how often each of these words was written together with them; nothing else matters.",
    'def f(x): return {"a": [1, 2.5e-3], "b": None}  # 1234567890 https://example.org/?q=1&r=%20\nimport sys, os.path',
    "Größe naïve façade où l'été; el niño también. Привет, мир! 東京は晴れ。 — “quotes” …",
)

Best = list[tuple[int, float]]
"""The best tokens of a distribution: id and log-probability."""


class ForeignServer(ABC):
    """See `BackEnd`. A kind of server says how it is asked.

    Args:
        link: to the server.
        best: how many of the best tokens of a row are asked for.
        model: the model's name there; None leaves it to the server.
        open_s: seconds in which a prompt has to be read.
    """

    follows_draws = False
    gives_logits = False

    def __init__(self, link: Link, best: int, model: str | None, open_s: float) -> None:
        self.url, self.best, self.link = link.url, best, link
        self._model, self._open_s = model, open_s
        self.open_texts = 0

    @abstractmethod
    def describe(self) -> Described:
        """Ask the server for its model. Waits."""

    @abstractmethod
    async def read_prompt(self, tokens: list[int], timeout: float, vocab_size: int) -> Opened:
        """Have the server read a prompt and keep its KV cache, as far as it keeps any."""

    @abstractmethod
    async def continued(
        self, tokens: list[int], draft: list[int], have: int, ahead: int, temperature: float, vocab_size: int
    ) -> Received:
        """Return the rows behind a draft from `have` on, and `ahead` drawn tokens with theirs; see `RemoteText.read`.

        Args:
            tokens: the text before the draft.
        """

    def require_vocabulary(self, vocabulary: Vocabulary, target: str) -> None:
        """Have the server tokenize some texts."""
        require_vocabulary(self.link, self._model, vocabulary, target)

    def text(
        self, prompt_ids: Sequence[int], new_tokens: int, law: Law, vocab_size: int, eos: frozenset[int]
    ) -> ForeignText:
        """Return a text that is not open."""
        return ForeignText(self, self._open_s, prompt_ids, law.temperature, vocab_size)

    def close(self) -> None:
        """End the connection."""
        self.link.close()

    def rows(self, positions: Sequence[Best], vocab_size: int) -> tuple[list[Any], list[float]]:
        """Return the rows of positions; see `rows_of`."""
        return rows_of(positions, self.best, vocab_size, self.url)


class ForeignText:
    """See `RemoteText`. The text is kept here."""

    def __init__(
        self, server: ForeignServer, open_s: float, prompt_ids: Sequence[int], temperature: float, vocab_size: int
    ) -> None:
        self._server, self._open_s = server, open_s
        self._tokens = list(prompt_ids)
        self._temperature, self._vocab_size = temperature, vocab_size
        self._closed = False

    def open(self) -> Future[Opened]:
        """Have the prompt read."""
        self._server.open_texts += 1
        return self._server.link.start(self._server.read_prompt(self._tokens, self._open_s, self._vocab_size))

    def read(
        self, commit: Sequence[int], draft: Sequence[int], have: int, ahead: int, shares: Sequence[float]
    ) -> Future[Received]:
        """Ask for rows, and for a draft."""
        self._tokens += commit
        temperature = self._temperature if ahead else 0.0
        return self._server.link.start(
            self._server.continued([*self._tokens], [*draft], have, ahead, temperature, self._vocab_size)
        )

    def close(self) -> None:
        """Forget the text."""
        if not self._closed:
            self._closed = True
            self._server.open_texts -= 1


def get(link: Link, path: str) -> Any:
    """Return the JSON that a path answers with. Waits.

    Raises:
        RemoteError: there is none.
    """
    return read(link.start(link.exchange(path)).result(), link.url + path)


def read(body: bytes, url: str) -> Any:
    """Return the JSON of a body.

    Raises:
        RemoteError: it is none.
    """
    try:
        return json.loads(body)
    except ValueError:
        raise RemoteError(f"{url} answered with something that is no JSON: {body[:80]!r}", code="answer") from None


def require_vocabulary(link: Link, model: str | None, vocabulary: Vocabulary, target: str) -> None:
    """Have the server tokenize some texts, and compare the ids. Warns if it has no path for that.

    Raises:
        VocabularyMismatchError: the ids differ.
    """
    for text in _PROBES:
        # vLLM and SGLang read "prompt", llama.cpp "content"; each ignores the other's fields.
        asked = {"model": model, "prompt": text, "content": text, "add_special_tokens": False, "add_special": False}
        try:
            found = read(link.start(link.exchange("/tokenize", json=asked)).result(), link.url + "/tokenize")
            theirs = [int(index) for index in found["tokens"]]
        except (RapidError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, RemoteError) and error.code in ("remote.unreachable", "remote.timeout"):
                raise
            warnings.warn(
                f"{link.url} does not tokenize a text, so its tokenizer was not compared with that of {target}: they "
                "have to be the same",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        if theirs != vocabulary.encode(text):
            raise VocabularyMismatchError(
                f"the model at {link.url} cannot draft for {target}: their tokenizers split {text[:40]!r} differently. "
                "Both models must come from one family with one tokenizer"
            )


def rows_of(positions: Sequence[Best], best: int, vocab_size: int, url: str) -> tuple[list[Any], list[float]]:
    """Return rows (V,) of the best tokens at each position, and the probability of the others.

    Args:
        positions: what the server says. The token that it drew may stand beside the best ones; it is left out.
        best: how many tokens count.
        vocab_size: V. Tokens beyond it are padding, and are left out.
        url: for messages.

    Raises:
        RemoteError: a position has no token.
    """
    rows, outside = [], []
    for found in positions:
        kept = sorted((each for each in found if each[0] < vocab_size), key=lambda each: -each[1])[:best]
        if not kept:
            raise RemoteError(
                f"{url} gives no log-probabilities of tokens by id. It has to offer logprobs={best} on completions, "
                "with return_tokens_as_token_ids as vLLM has it, or ids as llama.cpp does",
                code="answer",
            )
        rows.append(row_of([index for index, _ in kept], [value for _, value in kept], vocab_size))
        outside.append(max(0.0, 1.0 - math.fsum(math.exp(value) for _, value in kept)))
    return rows, outside
