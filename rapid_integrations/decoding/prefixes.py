"""Opens the readers of requests on cached prefixes, and caches the prefixes of ended requests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from rapid_integrations.cache import KVCache, distinct_bytes
from rapid_integrations.cache.background_saver import BackgroundSaver
from rapid_integrations.cache.indexed_texts import IndexedTexts
from rapid_integrations.cache.kv_cache import allocated_tokens
from rapid_integrations.cache.out_of_memory import memory_errors_taught
from rapid_integrations.cache.prefix_cache import PrefixCache, Role
from rapid_integrations.cache.prefix_store import MIN_GAIN_TOKENS, PrefixStore
from rapid_integrations.cache.segments import MOST_COPIED
from rapid_integrations.decoding.chunk_view import Chosen, reader_over
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.errors import CacheError
from rapid_integrations.models.causal_lm import CausalLM, cache_bytes, cache_variant, rows_bytes

_WAY_OUT = (
    "Its caches and those of earlier requests have been freed, and the next request can use them. Shorten the "
    "document, ask for fewer new tokens, run fewer requests at once, or use a smaller model or quantization='int8' or "
    "'int4'"
)
FLUSH_S = 30.0  # limit for `close` to finish running saves


class Prefixes:
    """Opens readers on KV caches that hold the beginning of their prompt, and stores the caches of ended requests.

    Args:
        memory: the caches in memory.
        store: the caches on disk, or None.
        automatic: whether nobody chose the size of `memory`. It then warns of a prompt that is too long for it.
    """

    def __init__(self, memory: PrefixCache, store: PrefixStore | None = None, *, automatic: bool = False) -> None:
        self.memory = memory
        self.store = store
        self.texts = IndexedTexts()
        self._running: list[RequestReaders] = []
        self._saver = None if store is None else BackgroundSaver(FLUSH_S)
        self._automatic = automatic
        self._told = False  # that a prompt is too long to be kept
        self._variants: dict[tuple[int, int], object] = {}  # by identity of the model
        self._fingerprints: dict[int, str | None] = {}  # by identity, as the engine holds its models
        self._unknown: dict[int, str] = {}  # why a model has no fingerprint; warned of once

    @property
    def enabled(self) -> bool:
        """Whether any cache is ever stored."""
        return self.memory.max_bytes > 0 or self.store is not None

    @contextmanager
    def request(self, about: str = "") -> Iterator[RequestReaders]:
        """Open one request's readers, and store what they have read when the request finishes, is closed or fails.

        A request that ran out of memory stores nothing, and frees the caches in memory for the next request.

        Args:
            about: what the request is about. `rapid cache list` shows it for the files that the request leaves.

        Raises:
            OutOfMemoryError: torch ran out of memory.
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
            self._running.remove(readers)  # before the next request may take the caches
            while readers.opened:  # the target's reader was opened first and is stored last, as the most recently used
                self._keep(*readers.opened.pop(), about)

    def find(self, model: CausalLM, prompt_ids: Sequence[int], capacity: int) -> KVCache | None:
        """Return a cache that holds the beginning of a prompt, from disk if that holds clearly more."""
        variant = cache_variant(model, capacity)
        key = self._key(model, variant)
        if self.store is not None and (name := self._fingerprint(model)) is not None:
            more_than = self.memory.shared(key, prompt_ids)
            found = self.store.load(_named(name, variant), prompt_ids, capacity, model.device, more_than)
            if found is not None:
                found.variant = variant
                if getattr(model, "sparse_prefill", None) is not None:
                    found.sparse_rows = found.length  # a file has no others
                    found.rollback(found.reusable(found.length))
                return found
        return self.memory.take(key, prompt_ids, capacity)

    def left(self, model: CausalLM, prompt_ids: Sequence[int], capacity: int, more_than: int) -> KVCache | None:
        """Return a cache in memory with more than so many tokens of a prompt, which a request left that has ended."""
        key = self._key_for(model, capacity)
        found = self.memory.take(key, prompt_ids, capacity) if self.memory.shared(key, prompt_ids) > more_than else None
        return found if found is not None and found.length > more_than else None

    def _key(self, model: CausalLM, variant: int) -> object:
        """Return what stands for a model in the memory: another object for each variant of its caches."""
        return model if variant == 0 else self._variants.setdefault((id(model), variant), object())

    def _key_for(self, model: CausalLM, capacity: int) -> object:
        return self._key(model, cache_variant(model, capacity))

    def need(self, model: CausalLM, role: Role, prompt_ids: Sequence[int], capacity: int) -> int:
        """Return the bytes that a reader's cache needs beyond what is held in memory of its prompt now.

        Args:
            model, role, prompt_ids: the reader's.
            capacity: tokens that have to fit.
        """
        shared = self.memory.shared(self._key_for(model, capacity), prompt_ids)
        ids = np.asarray(prompt_ids[:-1], dtype=np.int64)
        for request in self._running:
            for reader, as_role in request.opened:
                if reader.model is model and as_role == role and reader.exact:
                    shared = max(shared, reader.shared_with(ids))
        referred = max(0, shared - MOST_COPIED)
        return cache_bytes(model, allocated_tokens(capacity) - referred)

    def tell_if_too_long(self, model: CausalLM, capacity: int) -> None:
        """Warn once if a text is too long for a cache whose size nobody chose, and will not be kept."""
        needed, budget = rows_bytes(model, allocated_tokens(capacity)), self.memory.max_bytes
        if self._told or not self._automatic or not 0 < budget < needed:
            return
        self._told = True
        warnings.warn(
            f"a prompt for {model.name} takes {needed / 2**30:.2f} GiB of keys and values, and finished requests may "
            f"keep {budget / 2**30:.2f} GiB: the next question about the same document will read it again. Give a "
            f"larger prefix_cache_bytes (--prefix-cache-mib), or 0 if no document comes back",
            RuntimeWarning,
            stacklevel=2,
        )

    def unread(self, model: CausalLM, prompt_ids: Sequence[int]) -> int:
        """Return how many tokens of a prompt no cache in memory holds of an ended request."""
        return len(prompt_ids) - self.memory.shared(self._key_for(model, len(prompt_ids)), prompt_ids)

    def running_bytes(self) -> int:
        """Return the bytes of all caches of running requests; what they share counts once."""
        return distinct_bytes(reader.cache for request in self._running for reader, _ in request.opened)

    def caches(self) -> list[KVCache]:
        """Return the caches of running requests and those that are kept for later ones. Any thread may ask."""
        running = [reader.cache for request in tuple(self._running) for reader, _ in tuple(request.opened)]
        return [*running, *self.memory.caches()]

    def others(self, model: CausalLM, role: Role, own: RequestReaders) -> list[Reader]:
        """Return the open readers of requests that began before `own`, with the same model in the same role."""
        return [
            reader
            for request in self._running[: self._running.index(own)]
            for reader, as_role in request.opened
            if reader.model is model and as_role == role and reader.exact
        ]

    def wait_until_saved(self) -> None:
        """Return when every cache that was to be saved is on disk, or could not be saved."""
        if self._saver is not None:
            self._saver.wait()

    def kept(self, model: CausalLM, token_ids: Sequence[int]) -> tuple[int, int]:
        """Return how many of these tokens, from the first one on, are cached in memory and on disk."""
        in_memory, on_disk = self.memory.shared(self._key_for(model, len(token_ids)), [*token_ids, -1]), 0
        if self.store is not None and (name := self._fingerprint(model)) is not None:
            with suppress(OSError):  # `load` and `save` warn of it
                on_disk = self.store.holds(_named(name, cache_variant(model, len(token_ids))), token_ids)
        return in_memory, on_disk

    def clear(self) -> None:
        """Free the caches in memory and the indexes, and compute the models' fingerprints again."""
        self.memory.clear()
        self.texts.clear()
        self._fingerprints.clear()

    def abandon(self) -> None:
        """Do the same as `close` without waiting. Running writes to disk end by themselves."""
        self.memory.close()
        if self._saver is not None:
            self._saver.end()

    def fingerprint_of(self, model: CausalLM) -> str | None:
        """Return a model's fingerprint with its present weights, or None if it has none."""
        if id(model) not in self._fingerprints:
            try:
                self._fingerprints[id(model)] = model.fingerprint()
            except CacheError as error:
                self._fingerprints[id(model)] = None
                self._unknown[id(model)] = str(error)
        return self._fingerprints[id(model)]

    def close(self) -> None:
        """Free the caches in memory, and finish running writes within `FLUSH_S`."""
        self.memory.close()
        if self._saver is not None and not self._saver.close(FLUSH_S):
            warnings.warn(
                f"closed before all prefixes were saved: {FLUSH_S:.0f} s have passed", RuntimeWarning, stacklevel=3
            )

    def _keep(self, reader: Reader, role: Role, about: str) -> None:
        if not reader.exact:
            return
        cache = reader.cache
        # There may be draft tokens after the committed text (if closed in the middle of a round). The rows before them
        # are always those of `tokens`, in order.
        cache.rollback(min(cache.length, len(reader.tokens)))
        if cache.sparse_rows is not None:
            cache.rollback(min(cache.length, cache.sparse_rows))
        token_ids = reader.tokens[: cache.length]
        # A drafter's prompt changes with each question, so it is saved only after it was reused once.
        comes_back = role == "target" or 2 * reader.reused >= len(token_ids)
        if comes_back and cache.filled_layers == cache.layers:
            self._save_later(reader.model, token_ids, cache, about)
        self.memory.put(self._key(reader.model, cache.variant), role, token_ids, cache)

    def _save_later(self, model: CausalLM, token_ids: list[int], cache: KVCache, about: str) -> None:
        store, name = self.store, self._fingerprints.get(id(model))
        if store is None or self._saver is None or name is None or len(token_ids) < MIN_GAIN_TOKENS:
            return
        ids = np.asarray(token_ids, dtype=np.int64)
        cache.freeze()  # forks of it may be written meanwhile
        labels = {"model": model.name, "about": about}
        self._saver.submit(lambda go_on: store.save(_named(name, cache.variant), ids, cache, go_on, labels))

    def _fingerprint(self, model: CausalLM) -> str | None:
        name = self.fingerprint_of(model)
        if (reason := self._unknown.pop(id(model), None)) is not None:
            warnings.warn(f"prefixes of {model.name} are not saved to disk: {reason}", RuntimeWarning, stacklevel=2)
        return name


def _named(fingerprint: str, variant: int) -> str:
    return f"{variant}-{fingerprint}" if variant else fingerprint  # a file's name has the beginning of it


class RequestReaders:
    """The readers of one request. Opened on `Prefixes.request`."""

    def __init__(self, prefixes: Prefixes) -> None:
        self._prefixes = prefixes
        self.opened: list[tuple[Reader, Role]] = []

    def open_empty(self, model: CausalLM, role: Role, prompt_ids: Sequence[int], capacity: int) -> Reader:
        """Return a reader on an empty cache, whose rows nobody else gets; see `Reader` for the arguments."""
        reader = Reader(model, prompt_ids, capacity)
        reader.exact = False
        self.opened.append((reader, role))
        return reader

    def open_view(self, model: CausalLM, chosen: Chosen, target: KVCache, new_tokens: int) -> Reader:
        """Return a drafter's reader over rows of the target's cache; see `reader_over` for the arguments."""
        reader = reader_over(model, chosen, target, new_tokens)
        reader.exact = False
        self.opened.append((reader, "drafter"))
        return reader

    def open(self, model: CausalLM, role: Role, prompt_ids: Sequence[int], capacity: int) -> Reader:
        """Return a reader on the longest cached prefix of its prompt; see `Reader` for the arguments."""
        cache = self._prefixes.find(model, prompt_ids, capacity) if self._prefixes.enabled else None
        if role == "target":
            self._prefixes.tell_if_too_long(model, capacity)
        reader = Reader(model, prompt_ids, capacity, cache)
        if self._prefixes.enabled:
            reader.others = lambda: self._prefixes.others(model, role, self)
            reader.left = lambda more_than: self._prefixes.left(model, prompt_ids, capacity, more_than)
        self.opened.append((reader, role))
        return reader

    @property
    def texts(self) -> IndexedTexts:
        """The suffix indexes of earlier prompts, which are kept with their caches."""
        return self._prefixes.texts if self._prefixes.enabled else IndexedTexts()

    def own_bytes(self) -> int:
        """Return the bytes of the caches that nobody else had before."""
        return sum(reader.cache.nbytes for reader, _ in self.opened)
