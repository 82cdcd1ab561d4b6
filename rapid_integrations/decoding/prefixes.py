"""Where requests get their readers from, and what they leave behind for the next ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from rapid_integrations.cache import KVCache
from rapid_integrations.cache.background_saver import BackgroundSaver
from rapid_integrations.cache.out_of_memory import memory_errors_taught
from rapid_integrations.cache.prefix_cache import PrefixCache, Role
from rapid_integrations.cache.prefix_store import MIN_GAIN_TOKENS, PrefixStore
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.errors import CacheError
from rapid_integrations.models.causal_lm import CausalLM

_WAY_OUT = (
    "Its caches and those kept of earlier requests have been freed, and the next request can use them. Shorten the "
    "document, ask for fewer new tokens, run fewer requests at once, or use a smaller model or quantization='int8' or "
    "'int4'"
)
FLUSH_S = 30.0  # that closing may take, for saves that have not ended


class Prefixes:
    """Opens readers on KV caches that hold the beginning of their prompt, and keeps the caches of ended requests.

    Args:
        memory: the caches kept in memory.
        store: those kept on disk; None for none.
    """

    def __init__(self, memory: PrefixCache, store: PrefixStore | None = None) -> None:
        self.memory = memory
        self.store = store
        self._running: list[RequestReaders] = []
        self._saver = None if store is None else BackgroundSaver(FLUSH_S)
        self._fingerprints: dict[int, str | None] = {}  # by identity: the engine holds its models
        self._unknown: dict[int, str] = {}  # why a model has none, to be said once

    @property
    def enabled(self) -> bool:
        """Whether anything is ever kept."""
        return self.memory.max_bytes > 0 or self.store is not None

    @contextmanager
    def request(self) -> Iterator[RequestReaders]:
        """Open one request's readers; when it ends, finished, closed or failed, keep what they have read.

        A request that ran out of memory keeps nothing, and frees what others kept: the next one needs the room.

        Raises:
            OutOfMemoryError: in place of what torch raises for it.
        """
        readers = RequestReaders(self)

        def free() -> None:
            readers.opened.clear()
            self.memory.clear()

        self._running.append(readers)
        try:
            with memory_errors_taught("this request", _WAY_OUT, free):
                yield readers
        finally:
            self._running.remove(readers)  # before the next request may have the caches
            while readers.opened:  # the target's was opened first and is kept last: it is the most recently used
                self._keep(*readers.opened.pop())

    def find(self, model: CausalLM, prompt_ids: Sequence[int], capacity: int) -> KVCache | None:
        """Return a cache that holds the beginning of a prompt, from disk where that holds clearly more."""
        if self.store is not None and (name := self._fingerprint(model)) is not None:
            more_than = self.memory.shared(model, prompt_ids)
            if (cache := self.store.load(name, prompt_ids, capacity, model.device, more_than)) is not None:
                return cache
        return self.memory.take(model, prompt_ids, capacity)

    def others(self, model: CausalLM, role: Role, own: RequestReaders) -> list[Reader]:
        """Return what other requests than `own` have open just now with the same model in the same role."""
        return [
            reader
            for request in tuple(self._running)
            for reader, as_role in tuple(request.opened)
            if request is not own and reader.model is model and as_role == role
        ]

    def clear(self) -> None:
        """Free what is kept in memory, and look at the models' weights anew."""
        self.memory.clear()
        self._fingerprints.clear()

    def abandon(self) -> None:
        """Do what `close` does without waiting: what is being written to disk ends by itself."""
        self.memory.close()
        if self._saver is not None:
            self._saver.end()

    def fingerprint_of(self, model: CausalLM) -> str | None:
        """Return what tells a model with its weights from every other; None where that is unknown."""
        if id(model) not in self._fingerprints:
            try:
                self._fingerprints[id(model)] = model.fingerprint()
            except CacheError as error:
                self._fingerprints[id(model)] = None
                self._unknown[id(model)] = str(error)
        return self._fingerprints[id(model)]

    def close(self) -> None:
        """Free what is kept in memory; end what is being written, within `FLUSH_S`."""
        self.memory.close()
        if self._saver is not None and not self._saver.close(FLUSH_S):
            warnings.warn(
                f"closed before all prefixes were written: {FLUSH_S:.0f} s are over", RuntimeWarning, stacklevel=3
            )

    def _keep(self, reader: Reader, role: Role) -> None:
        cache = reader.cache
        # Behind the committed text there may be draft tokens (closed in the middle of a round); the rows before them
        # are always those of `tokens`, in order.
        cache.rollback(min(cache.length, len(reader.tokens)))
        token_ids = reader.tokens[: cache.length]
        # A drafter's prompt is made anew for each question. It is worth a file once it has proved to come back.
        comes_back = role == "target" or 2 * reader.reused >= len(token_ids)
        if comes_back and cache.filled_layers == cache.layers:
            self._save_later(reader.model, token_ids, cache)
        self.memory.put(reader.model, role, token_ids, cache)

    def _save_later(self, model: CausalLM, token_ids: list[int], cache: KVCache) -> None:
        store, name = self.store, self._fingerprints.get(id(model))
        if store is None or self._saver is None or name is None or len(token_ids) < MIN_GAIN_TOKENS:
            return
        ids = np.asarray(token_ids, dtype=np.int64)
        snapshot = cache.snapshot()  # before the next request may have the cache
        self._saver.submit(lambda go_on: store.save(name, ids, snapshot, go_on))

    def _fingerprint(self, model: CausalLM) -> str | None:
        name = self.fingerprint_of(model)
        if (reason := self._unknown.pop(id(model), None)) is not None:
            warnings.warn(f"prefixes of {model.name} are not kept on disk: {reason}", RuntimeWarning, stacklevel=2)
        return name


class RequestReaders:
    """The readers of one request. Opened on `Prefixes.request`."""

    def __init__(self, prefixes: Prefixes) -> None:
        self._prefixes = prefixes
        self.opened: list[tuple[Reader, Role]] = []

    def open(self, model: CausalLM, role: Role, prompt_ids: Sequence[int], capacity: int) -> Reader:
        """Return a reader that has read as much of its prompt as is kept; see `Reader` for the arguments."""
        cache = self._prefixes.find(model, prompt_ids, capacity) if self._prefixes.enabled else None
        reader = Reader(model, prompt_ids, capacity, cache)
        if self._prefixes.enabled:
            reader.others = lambda: self._prefixes.others(model, role, self)
        self.opened.append((reader, role))
        return reader
