"""The prefix cache: KV caches of finished requests, kept in memory for the next ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rapid_integrations.cache.kv_cache import KVCache, distinct_bytes
from rapid_integrations.errors import SharedResource

Role = Literal["target", "drafter"]
TokenIds = NDArray[np.int64]  # (n,)

MIN_REUSED_TOKENS = 32  # fewer tokens (a template's opening words) are not worth evicting another cache
MOST_ANSWERS = 8  # entries that continue one text differently; each holds its own rows behind the shared ones
DRAFTER_SHARE = 4  # drafters' entries are evicted first while they hold over 1/4 of the budget


@dataclass(eq=False)
class _Entry:
    model: object
    role: Role
    token_ids: TokenIds
    cache: KVCache
    used: int = 0


class PrefixCache(SharedResource):
    """Keeps the KV caches of finished requests within a byte budget, and evicts the least recently used first.

    A request `take`s a fork of the entry that shares the longest token prefix with its prompt, and `put`s its own
    cache when it ends, however it ends. The entry stays, so that several requests at the same time, and the next ones,
    find it. A fork refers to the entry's rows. So a document is held once, however many entries begin with it, and it
    counts once for the budget. An evicted entry frees only what no other entry and no running request refers to.

    Of the entries that share most of their tokens (answers to questions about one document), the newest `MOST_ANSWERS`
    stay. Each of them has rows that only a continued chat needs.

    Entries hold prompt and output. A fork takes the part that the next prompt shares with them anyway, and a chat turn
    that repeats the answer finds it cached. Where layers with a sliding window have freed the rows that it needs, it
    takes less (`KVCache.reusable`).

    The drafter's prompt changes with every question, because retrieval chooses it. Its entries are seldom used again,
    so they must not evict documents (see `DRAFTER_SHARE`).

    Threads may share it. A finaliser may call `put`.

    Args:
        max_bytes: maximum size of all entries' buffers, shared ones counted once; 0 keeps nothing.
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
        """Size of all entries in bytes. Buffers that they share count once."""
        return distinct_bytes(self.caches())

    def caches(self) -> list[KVCache]:
        """Return the entries' caches, which are frozen."""
        with self._locked():
            return [entry.cache for entry in self._entries]

    def __len__(self) -> int:
        with self._locked():
            return len(self._entries)

    def shared(self, model: object, token_ids: Sequence[int]) -> int:
        """Return how many tokens `take` would find cached."""
        with self._locked():
            return self._longest(model, np.asarray(token_ids, dtype=np.int64))[1]

    def take(self, model: object, token_ids: Sequence[int], capacity: int) -> KVCache | None:
        """Return a cache that holds the first tokens of `token_ids`, or None if nothing useful is kept.

        It holds at most all but the last token, because decoding starts with the logits after that one.

        Args:
            model: the model of the cache; entries of other models are ignored.
            token_ids: the prompt.
            capacity: tokens that must fit.
        """
        with self._locked():
            ids = np.asarray(token_ids, dtype=np.int64)
            entry, shared = self._longest(model, ids)
            if entry is None:
                return None
            self._clock += 1
            entry.used = self._clock
        cache = entry.cache.fork(shared, capacity)  # a cache without shared rows would need more memory, not less
        # The next question about this text will part from it at the same place.
        cache.mark(common_prefix(entry.token_ids, ids[:-1]))
        return cache

    def put(self, model: object, role: Role, token_ids: Sequence[int], cache: KVCache) -> None:
        """Keep `cache` for later requests.

        Args:
            model: the model of the cache.
            role: the model's role in the request.
            token_ids: the tokens of the cache's rows, one each.
            cache: the cache, which is frozen. The caller may only fork it from now on.
        """
        assert len(token_ids) == cache.length, f"{len(token_ids)} tokens for {cache.length} rows"
        cache.freeze()
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
        """Hold the lock, with all returned entries admitted first."""
        try:
            with self._lock:
                self._admit_returned()
                yield
        finally:
            self._admit_if_free()  # admit what was returned meanwhile

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
            if self._closed or size < MIN_REUSED_TOKENS or distinct_bytes([new.cache]) > self.max_bytes:
                continue
            same = [entry for entry in self._entries if entry.model is new.model]
            common = {id(entry): common_prefix(entry.token_ids, new.token_ids) for entry in same}
            longer = [entry for entry in same if common[id(entry)] == size and entry.cache.branches(size)]
            if longer:
                longer[0].used = max(longer[0].used, new.used)
                continue
            answers = [entry for entry in same if 2 * common[id(entry)] >= max(size, len(entry.token_ids))]
            answers.sort(key=lambda entry: -entry.used)
            for entry in same:
                continued = common[id(entry)] == len(entry.token_ids) and new.cache.branches(len(entry.token_ids))
                if continued or entry in answers[MOST_ANSWERS - 1 :]:
                    self._entries.remove(entry)
            self._entries.append(new)
        self._evict()

    def _evict(self) -> None:
        while (total := distinct_bytes(entry.cache for entry in self._entries)) > self.max_bytes:
            drafters = [entry for entry in self._entries if entry.role == "drafter"]
            too_many = DRAFTER_SHARE * distinct_bytes(entry.cache for entry in drafters) > total
            self._entries.remove(min(drafters if too_many else self._entries, key=lambda entry: entry.used))

    def _longest(self, model: object, token_ids: TokenIds) -> tuple[_Entry | None, int]:
        best: tuple[_Entry | None, int] = (None, 0)
        for entry in sorted(self._entries, key=lambda entry: -entry.used):
            if entry.model is model:
                shared = entry.cache.reusable(common_prefix(entry.token_ids, token_ids[:-1]))
                if shared >= MIN_REUSED_TOKENS and shared > best[1]:
                    best = (entry, shared)
        return best


def common_prefix(first: TokenIds, second: TokenIds) -> int:
    """Return how many tokens two texts share from their start."""
    length = min(len(first), len(second))
    different = first[:length] != second[:length]
    return int(different.argmax()) if different.any() else length
