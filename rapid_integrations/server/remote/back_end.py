"""The protocol between a drafter on another machine and the kind of server that it is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.sampling import Law


@dataclass(frozen=True)
class Described:
    """What a server says of its model. What it does not say is None."""

    name: str
    vocab_size: int | None = None
    context_window: int | None = None
    num_parameters: int | None = None
    weight_bytes: int | None = None
    kv_bytes_per_token: int | None = None


@dataclass(frozen=True)
class Opened:
    """A prompt has been read there: so many of its tokens were in a cache, and so many bytes were exchanged."""

    reused: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class Received:
    """The answer to `RemoteText.read`.

    Attributes:
        written: the tokens that the server drafted.
        rows: logits (V,) after each token of the draft and of `written`, from the first one on that was not known; -inf
            for tokens that were not sent.
        outside: for each row, the probability at T = 1 of the tokens that were not sent.
        sent, received: bytes of this call.
        round_trips: HTTP requests that were made for it; a share of those that carried several calls counts as one.
    """

    written: list[int]
    rows: list[Tensor]
    outside: list[float]
    sent: int
    received: int
    round_trips: int = 1


class RemoteText(Protocol):
    """A text on a server, behind which drafts are read."""

    def open(self) -> Future[Opened]:
        """Have the prompt read."""
        ...

    def read(
        self, commit: Sequence[int], draft: Sequence[int], have: int, ahead: int, shares: Sequence[float]
    ) -> Future[Received]:
        """Ask for rows, and for a draft.

        Args:
            commit: tokens that became part of the text since the last call.
            draft: tokens behind it.
            have: so many of the first rows are known.
            ahead: so many tokens are to be drafted behind `draft`.
            shares: the uniform numbers that should draw them; empty if they are greedy.
        """
        ...

    def close(self) -> None:
        """Have the text forgotten. Does not wait."""
        ...


class BackEnd(Protocol):
    """A kind of server.

    Attributes:
        url: where it is.
        follows_draws: whether it draws a draft's tokens with the numbers that it is given. Otherwise it draws by
            itself.
        gives_logits: whether its rows are logits. Otherwise they are log-probabilities, which differ by a constant.
        best: how many of the best tokens of a row it sends; 0 if all.
    """

    url: str
    follows_draws: bool
    gives_logits: bool
    best: int

    def describe(self) -> Described:
        """Ask the server for its model. Waits.

        Raises:
            RemoteError: it does not answer.
        """
        ...

    def require_vocabulary(self, vocabulary: Vocabulary, target: str) -> None:
        """Compare the server's tokenizer with the target's. Waits.

        Raises:
            VocabularyMismatchError: they differ.
        """
        ...

    def text(
        self, prompt_ids: Sequence[int], new_tokens: int, law: Law, vocab_size: int, eos: frozenset[int]
    ) -> RemoteText:
        """Return a `RemoteText` that is not open."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...
