"""The client's side of a remote drafter: it scores drafts and writes them, one round trip a round.

The server's draft is a guess of what this side will draw, with the same uniform numbers. This side draws every token
itself, from the rows that it was sent. So an answer is that of a local drafter with the same rows, token by token,
whatever the server's own rounding, and however wrong its guess: a wrong guess costs another round trip.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Literal, TypeVar

from torch import Tensor

from rapid_integrations.decoding.elsewhere import DrafterElsewhere
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import Proposal
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.errors import EngineClosedError, OutOfMemoryError, RemoteError
from rapid_integrations.outputs import RemoteDrafting
from rapid_integrations.sampling import Randomness
from rapid_integrations.server.remote.back_end import BackEnd, Opened, Received, RemoteText

OnLost = Literal["error", "target"]

T = TypeVar("T")

_LOST = (RemoteError, EngineClosedError, OutOfMemoryError)  # the last two are the server's own


class RemoteScorer(DrafterElsewhere):
    """A drafter whose text another machine reads.

    Args:
        back_end: the server.
        text: the prompt there, which is opened now.
        rules: the request's.
        prompt_tokens: the length of the prompt, for progress.
        on_lost: "error" raises the error of a lost server, "target" goes on under the law "target".
    """

    def __init__(self, back_end: BackEnd, text: RemoteText, rules: Rules, prompt_tokens: int, on_lost: OnLost) -> None:
        self._rules = rules
        self._rows: list[Tensor] = []
        self._back_end, self._text, self._on_lost = back_end, text, on_lost
        self._prompt_tokens = prompt_tokens
        self._opening: Future[Opened] = text.open()
        self._reused = 0
        self._commit: list[int] = []  # committed tokens that the server does not know yet
        self._output = 0  # committed tokens
        self._path: list[int] = []  # draft tokens of this round that the server has read
        self._path_rows: list[Tensor] = []
        self._asked: tuple[list[int], Future[Received]] | None = None  # a call whose answer nobody has taken
        self._next: tuple[int, Randomness] | None = None  # while a draft is written: its end, and what draws it
        self._calls = self._trips = self._sent = self._received = self._seen = 0
        self._waited = self._outside = 0.0
        self._settled = 0  # tokens of this round that follow the law whatever becomes of the server
        self._lost_at: int | None = None
        self._why: str | None = None

    def opened(self, report: Callable[[int, int], None]) -> Steps[None]:
        """Wait until the prompt has been read there."""
        report(0, self._prompt_tokens)
        if (found := (yield from self._result(self._opening))) is not None:
            self._reused = found.reused
            self._sent, self._received, self._trips = found.sent, found.received, 1 if found.sent else 0
        report(self._prompt_tokens, self._prompt_tokens)

    @property
    def reused(self) -> int:
        """The number of tokens of the prompt that were in a cache there."""
        return self._reused

    def draft(self, tokens: int, rng: Randomness, source: str = "", behind: Sequence[int] = ()) -> Steps[Proposal]:
        """Write at most `tokens` tokens behind the text; see `Drafter.draft`.

        A server that draws by itself proposes point masses: whatever it draws from, the law stays exact.
        """
        assert not behind, "only drafters of this process write behind draft tokens"
        if self.lost or not tokens:
            return Proposal((), None, source)
        if not self._back_end.follows_draws and not self._rules.law.greedy:
            yield from self._ask([], tokens)
            return Proposal(tuple(_up_to(self._path[:tokens], self._rules.eos_token_ids)), None, source)
        self._next = tokens, rng
        try:
            return (yield from super().draft(tokens, rng, source))
        finally:
            self._next = None

    def begin(self, draft: Sequence[int]) -> None:
        """Ask for what is still needed to score `draft`, so that it is read there while the target reads here."""
        if not self.lost and not self.scores(max(len(draft) - 1, 0)) and not self._knows(draft):
            self._asked = list(draft), self._call(draft, 0)

    def score(self, draft: Sequence[int], parents: Sequence[int] | None = None) -> Steps[None]:
        """Make the rows at all positions of `draft`, a chain, known, unless the server is lost."""
        if not self.lost and not self._knows(draft):
            # If all of a draft has been verified with the rows before, only the token behind it is still to be drawn.
            self._settled = len(draft) if self._next is None and draft and self.scores(len(draft) - 1) else 0
            ahead = 0 if self._next is None else self._next[0] - len(draft)
            yield from self._ask(draft, ahead)
        if not self.lost:
            self._rows = self._path_rows[: len(draft) + 1]

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the text. The server learns of them with the next call."""
        self._commit += token_ids
        self._output += len(token_ids)
        self._path, self._path_rows, self._rows = [], [], []
        self._settled = 0

    def statistics(self) -> RemoteDrafting:
        """Return what has been exchanged so far."""
        return RemoteDrafting(
            url=self._back_end.url,
            calls=self._calls,
            round_trips=self._trips,
            sent_bytes=self._sent,
            received_bytes=self._received,
            waited_s=self._waited,
            rows=self._seen,
            best=self._back_end.best,
            distance=self._outside / self._seen if self._seen else None,
            target_from=self._lost_at,
            lost=self._why,
        )

    def close(self) -> None:
        """Have the server forget the text. Does not wait."""
        self._opening.cancel()
        if self._asked is not None:
            self._asked[1].cancel()
        self._text.close()

    def _knows(self, draft: Sequence[int]) -> bool:
        return self._path[: len(draft)] == list(draft) and len(self._path_rows) > len(draft)

    def _ask(self, draft: Sequence[int], ahead: int) -> Steps[None]:
        """Have the rows of `draft` and of `ahead` further tokens sent, unless that was asked for before."""
        asked, self._asked = self._asked, None
        if asked is None or asked[0] != list(draft):
            asked = list(draft), self._call(draft, ahead)
        if (received := (yield from self._result(asked[1]))) is None:
            return
        have = self._have(draft)
        self._path = [*draft, *received.written]
        self._path_rows = [*self._path_rows[:have], *received.rows]
        if not self._knows(draft):
            raise RemoteError(
                f"{self._back_end.url} sent {len(received.rows)} rows for a draft of {len(draft)} tokens, of which "
                f"{have} were known: the other side may be another program",
                code="answer",
            )
        self._trips += received.round_trips
        self._sent += received.sent
        self._received += received.received
        self._seen += len(received.outside)
        self._outside += sum(received.outside)

    def _call(self, draft: Sequence[int], ahead: int) -> Future[Received]:
        self._calls += 1
        shares = [] if self._next is None or self._rules.law.greedy else self._next[1].ahead(ahead)
        commit, self._commit = self._commit, []
        return self._text.read(commit, draft, self._have(draft), ahead, shares)

    def _have(self, draft: Sequence[int]) -> int:
        same = 0
        for one, other in zip(self._path, draft, strict=False):
            if one != other:
                break
            same += 1
        return min(same + 1, len(self._path_rows))

    def _result(self, future: Future[T]) -> Steps[T | None]:
        """Wait for a future. None: the server is lost, and the request goes on without it.

        Raises:
            RapidError: it is lost, or refuses.
        """
        start = time.perf_counter()
        yield future
        self._waited += time.perf_counter() - start
        try:
            return future.result()
        except _LOST as error:
            if self._on_lost == "error":
                raise
            self._lost_at = self._output + self._settled
            self._why = str(error)
            self.lost = True
            return None


def _up_to(tokens: list[int], ends: frozenset[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    return tokens
