"""A RAPID server as a drafter. It keeps each text, so a prompt is sent once, and calls of several texts go together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rapid_integrations.errors import RapidError, RemoteError
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.sampling import Law
from rapid_integrations.server.remote.back_end import Described, Opened, Received
from rapid_integrations.server.remote.batches import Batches
from rapid_integrations.server.remote.best_rows import unpacked
from rapid_integrations.server.remote.error_bodies import error_from
from rapid_integrations.server.remote.frames import Array, pack, unpack
from rapid_integrations.server.remote.link import Link
from rapid_integrations.server.remote.tokenizers_sent import digest_of, received

LAST_WORD_S = 2.0  # for the server to hear that texts are not needed any more


@dataclass(frozen=True)
class _Call:
    """What a call says, and its arrays."""

    head: dict[str, Any]
    arrays: dict[str, Array]


@dataclass(frozen=True)
class _Answer:
    """The arrays of an answer, and this call's part of the bytes sent and received."""

    arrays: dict[str, Array]
    sent: int
    received: int


class RapidBackEnd:
    """See `BackEnd`.

    Args:
        link: to the server. Its time limit is that of a round.
        best: how many of the best tokens of a row are sent; 0 sends all.
        open_s: seconds in which a prompt has to be read.
    """

    follows_draws = True
    gives_logits = True

    def __init__(self, link: Link, best: int, open_s: float) -> None:
        self.url, self.best = link.url, best
        self._link, self._open_s = link, open_s
        self.open_texts = 0
        self.known: set[str] = set()  # texts that the server has
        self.calls: Batches[None, _Call, _Answer] = Batches(self._send, lambda: self.open_texts < 2)

    def describe(self) -> Described:
        """Ask the server for its model."""
        said = self._get("/rapid/v1/drafter")
        self._digest = str(said.get("tokenizer"))
        self._link.expect(said.get("digest"))
        try:
            known = {field.name: said[field.name] for field in fields(Described)}
        except KeyError as error:
            raise RemoteError(
                f"{self.url}/rapid/v1/drafter does not say {error}: it has another version", code="answer"
            ) from None
        return Described(**known)

    def require_vocabulary(self, vocabulary: Vocabulary, target: str) -> None:
        """Compare the tokenizers; that of the server is only fetched if it is written differently."""
        if digest_of(vocabulary) == self._digest:
            return
        theirs = received(self._get("/rapid/v1/tokenizer"), self.url)
        vocabulary.require_same(theirs, target, f"the drafter at {self.url}")

    def text(
        self, prompt_ids: Sequence[int], new_tokens: int, law: Law, vocab_size: int, eos: frozenset[int]
    ) -> RapidText:
        """Return a text that is not open."""
        head = {
            "new_tokens": new_tokens,
            "vocab_size": vocab_size,
            "best": self.best,
            "eos": sorted(eos),
            "temperature": law.temperature,
            "top_k": law.top_k,
            "top_p": law.top_p,
            "min_p": law.min_p,
        }
        opening = pack(head, {"token_ids": np.asarray(prompt_ids, dtype=np.int32)})
        return RapidText(self, self._link, opening, self._open_s, vocab_size)

    def close(self) -> None:
        """Have all texts forgotten, and end the connection."""
        if self.known and not self._link.closed and not self._link.is_here:
            try:
                self._link.start(self.forget(*self.known)).result(2 * LAST_WORD_S)
            except (RapidError, TimeoutError):  # the server forgets them by itself
                pass
        self._link.close()

    async def forget(self, *names: str) -> None:
        """Have texts forgotten. The server also does that by itself some minutes later, so no error is raised."""
        try:
            body = pack({"texts": list(names)}, {})
            await self._link.exchange("/rapid/v1/drafter/close", content=body, timeout=LAST_WORD_S)
        except RapidError:
            return
        self.known.difference_update(names)

    async def _send(self, _: None, calls: list[_Call]) -> list[_Answer | RapidError]:
        arrays = {f"{place}.{name}": a for place, call in enumerate(calls) for name, a in call.arrays.items()}
        body = pack({"calls": [call.head for call in calls]}, arrays)
        answer = await self._link.exchange("/rapid/v1/drafter/read", content=body)
        head, found = unpack(answer)
        said = head["answers"]
        if len(said) != len(calls):
            raise RemoteError(f"{self.url} answered {len(said)} of {len(calls)} calls", code="answer")
        parts: list[dict[str, Array]] = [{} for _ in calls]
        for name, array in found.items():
            place, own = name.split(".", 1)
            parts[int(place)][own] = array
        bytes_each = len(body) // len(calls), len(answer) // len(calls)
        return [
            error_from(each, 200, self.url) if "error" in each else _Answer(part, *bytes_each)
            for each, part in zip(said, parts, strict=True)
        ]

    def _get(self, path: str) -> dict[str, Any]:
        body = self._link.start(self._link.exchange(path)).result()
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise RemoteError(f"{self.url}{path} is no description of a RAPID drafter", code="answer")
        return said


class RapidText:
    """See `RemoteText`."""

    def __init__(self, owner: RapidBackEnd, link: Link, opening: bytes, open_s: float, vocab_size: int) -> None:
        self._owner, self._link = owner, link
        self._opening, self._open_s, self._vocab_size = opening, open_s, vocab_size
        self._name: str | None = None
        self._closed = False

    def open(self) -> Future[Opened]:
        """Have the prompt read."""
        self._owner.open_texts += 1
        return self._link.start(self._open())

    async def _open(self) -> Opened:
        opening, self._opening = self._opening, b""
        answer = await self._link.exchange("/rapid/v1/drafter/open", content=opening, timeout=self._open_s)
        said = json.loads(answer)
        self._name = str(said["text"])
        self._owner.known.add(self._name)
        if self._closed:
            await self._owner.forget(self._name)
        return Opened(int(said["reused"]), len(opening), len(answer))

    def read(
        self, commit: Sequence[int], draft: Sequence[int], have: int, ahead: int, shares: Sequence[float]
    ) -> Future[Received]:
        """Ask for rows, and for a draft."""
        head = {"text": self._name, "have": have, "ahead": ahead, "best": self._owner.best}
        arrays: dict[str, Array] = {
            "commit": np.asarray(commit, dtype=np.int32),
            "draft": np.asarray(draft, dtype=np.int32),
            "shares": np.asarray(shares, dtype=np.float64),
        }
        return self._link.start(self._read(head, arrays))

    async def _read(self, head: dict[str, Any], arrays: dict[str, Array]) -> Received:
        (answer,) = await self._owner.calls.ask(None, _Call(head, arrays))
        found = answer.arrays
        try:
            rows = unpacked(found, self._vocab_size) if len(found) > 2 else []
            written, outside = found["written"].tolist(), found["outside"].tolist()
        except (ValueError, KeyError) as error:
            raise RemoteError(f"{self._owner.url} sent rows that cannot be read: {error}", code="answer") from None
        return Received(written, rows, outside, answer.sent, answer.received)

    def close(self) -> None:
        """Have the text forgotten."""
        if not self._closed:
            self._closed = True
            self._owner.open_texts -= 1
            if self._name is not None:
                try:
                    self._link.start(self._owner.forget(self._name))
                except RapidError:  # the connection is closed, and the server forgets the text by itself
                    return
