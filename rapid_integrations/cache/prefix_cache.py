"""Prompts that have been read before: KV caches of finished requests, kept in memory for the next ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rapid_integrations.cache.kv_cache import KVCache
from rapid_integrations.errors import SharedResource

Role = Literal["target", "drafter"]
TokenIds = NDArray[np.int64]  # (n,)

MIN_REUSED_TOKENS = 32  # fewer (a template's opening words) are not worth another cache's place
DRAFTER_SHARE = 4  # drafters' entries are evicted first while they hold over 1/4 of the budget


@dataclass(eq=False)
class _Entry:
    model: object
    role: Role
    token_ids: TokenIds
    cache: KVCache
    used: int = 0


class PrefixCache(SharedResource):
    """Keeps the KV caches of finished requests, within a byte budget, least recently used out first.

    A request `take`s the entry that shares the longest token prefix with its prompt, and `put`s its own cache when it
    ends, however it ends. What it takes is its own: nobody else sees it, and it is not evicted. (A second request over
    the same document meanwhile finds nothing here, and copies what the first one has read: `Sequence.prefill`.)

    Where less than half of an entry is shared (two documents behind one system prompt), the shared rows are copied
    and the entry stays: it is worth more to the next question about its own document.

    Entries hold prompt and output: they are rolled back to what the next prompt shares with them anyway, and a chat
    turn that repeats the answer finds it read. `KVCache` keeps every row of sliding-window layers, so a rollback is
    exact for them too.

    The drafter's prompt changes with every question (retrieval chooses it), so its entries seldom serve again: they
    must not push documents out, see `DRAFTER_SHARE`.

    Safe to share between threads; `put` may be called from a finaliser.

    Args:
        max_bytes: of all entries, measured by what their buffers take; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: list[_Entry] = []
        self._lock = threading.Lock()
        self._returned: deque[_Entry] = deque()
        self._clock = 0
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes that the entries take."""
        with self._locked():
            return sum(entry.cache.nbytes for entry in self._entries)

    def __len__(self) -> int:
        with self._locked():
            return len(self._entries)

    def shared(self, model: object, token_ids: Sequence[int]) -> int:
        """Return how many tokens `take` would find read."""
        with self._locked():
            return self._longest(model, np.asarray(token_ids, dtype=np.int64))[1]

    def take(self, model: object, token_ids: Sequence[int], capacity: int) -> KVCache | None:
        """Return a cache that holds the first tokens of `token_ids`, or None where nothing useful is kept.

        It holds all but the last token at most, because decoding starts with the logits after that one.

        Args:
            model: whose cache; entries of other models are not looked at.
            token_ids: the prompt.
            capacity: tokens that must fit; a smaller entry is grown by copying it once.
        """
        with self._locked():
            entry, shared = self._longest(model, np.asarray(token_ids, dtype=np.int64))
            if entry is None:
                return None
            self._entries.remove(entry)  # ours while we copy, too: nobody may roll it back meanwhile
        moves = 2 * shared >= len(entry.token_ids)
        try:
            if not moves:
                return entry.cache.copy(shared, capacity)
            entry.cache.rollback(shared)
            entry.cache.reserve(capacity)
            return entry.cache
        except (MemoryError, RuntimeError):  # torch has no memory for the copy: prefilling may still do
            return None
        finally:
            if not moves:
                self._give_back(entry)

    def put(self, model: object, role: Role, token_ids: Sequence[int], cache: KVCache) -> None:
        """Keep `cache` for later requests.

        Args:
            model: whose cache it is.
            role: what the model read it as.
            token_ids: the tokens of the rows that the cache holds, one each.
            cache: not to be touched by the caller any more.
        """
        assert len(token_ids) == cache.length, f"{len(token_ids)} tokens for {cache.length} rows"
        self._clock += 1
        self._give_back(_Entry(model, role, np.asarray(token_ids, dtype=np.int64), cache, self._clock))

    def clear(self) -> None:
        """Free every entry."""
        with self._locked():
            self._entries.clear()

    def close(self) -> None:
        """Free every entry and keep nothing from now on."""
        self._closed = True
        self.clear()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The entries are ours: those that others have given back so far are among them."""
        try:
            with self._lock:
                self._admit_returned()
                yield
        finally:
            self._admit_if_free()  # what was given back meanwhile

    def _give_back(self, entry: _Entry) -> None:
        # A request may end in a finaliser, which Python may run anywhere, even in a thread that is inside the lock.
        # So nothing here waits: whoever holds the lock admits the entry.
        self._returned.append(entry)
        self._admit_if_free()

    def _admit_if_free(self) -> None:
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._admit_returned()
            finally:
                self._lock.release()

    def _admit_returned(self) -> None:
        while self._returned:
            new = self._returned.popleft()
            size = len(new.token_ids)
            if self._closed or size < MIN_REUSED_TOKENS or new.cache.nbytes > self.max_bytes:
                continue
            same = [entry for entry in self._entries if entry.model is new.model]
            longer = [entry for entry in same if common_prefix(entry.token_ids, new.token_ids) == size]
            if longer:
                longer[0].used = max(longer[0].used, new.used)
                continue
            for entry in same:
                if common_prefix(entry.token_ids, new.token_ids) == len(entry.token_ids):
                    self._entries.remove(entry)
            self._entries.append(new)
        self._evict()

    def _evict(self) -> None:
        while (total := sum(entry.cache.nbytes for entry in self._entries)) > self.max_bytes:
            drafters = [entry for entry in self._entries if entry.role == "drafter"]
            too_many = DRAFTER_SHARE * sum(entry.cache.nbytes for entry in drafters) > total
            self._entries.remove(min(drafters if too_many else self._entries, key=lambda entry: entry.used))

    def _longest(self, model: object, token_ids: TokenIds) -> tuple[_Entry | None, int]:
        best: tuple[_Entry | None, int] = (None, 0)
        for entry in sorted(self._entries, key=lambda entry: -entry.used):
            if entry.model is model:
                shared = common_prefix(entry.token_ids, token_ids[:-1])
                if shared >= MIN_REUSED_TOKENS and shared > best[1]:
                    best = (entry, shared)
        return best


def common_prefix(first: TokenIds, second: TokenIds) -> int:
    """Return how many tokens two texts share from their start."""
    length = min(len(first), len(second))
    different = first[:length] != second[:length]
    return int(different.argmax()) if different.any() else length
