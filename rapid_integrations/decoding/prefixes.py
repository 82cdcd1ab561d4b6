"""Where requests get their sequences from, and what they leave behind for the next ones."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as ReadOnly
from contextlib import contextmanager

import torch

from rapid_integrations.cache.prefix_cache import PrefixCache, Role
from rapid_integrations.decoding.sequence import Sequence
from rapid_integrations.models.causal_lm import CausalLM


class Prefixes:
    """Opens sequences on KV caches that hold the beginning of their prompt, and keeps the caches of ended requests.

    Args:
        memory: the caches kept in memory.
    """

    def __init__(self, memory: PrefixCache) -> None:
        self.memory = memory

    @property
    def enabled(self) -> bool:
        """Whether anything is ever kept."""
        return self.memory.max_bytes > 0

    @contextmanager
    def request(self) -> Iterator[RequestSequences]:
        """Open one request's sequences; when it ends, finished, closed or failed, keep what they have read.

        A request that ran out of memory keeps nothing, and frees what others kept: the next one needs the room.
        """
        sequences = RequestSequences(self)
        try:
            yield sequences
        except (MemoryError, torch.OutOfMemoryError):
            sequences.opened.clear()
            self.memory.clear()
            raise
        finally:
            while sequences.opened:  # the target's was opened first and is kept last: it is the most recently used
                self._keep(*sequences.opened.pop())

    def close(self) -> None:
        """Free everything that is kept."""
        self.memory.close()

    def _keep(self, sequence: Sequence, role: Role) -> None:
        cache = sequence.cache
        # Behind the committed text there may be draft tokens (closed in the middle of a round); the rows before them
        # are always those of `tokens`, in order.
        cache.rollback(min(cache.length, len(sequence.tokens)))
        self.memory.put(sequence.model, role, sequence.tokens[: cache.length], cache)


class RequestSequences:
    """The sequences of one request. Opened on `Prefixes.request`."""

    def __init__(self, prefixes: Prefixes) -> None:
        self._prefixes = prefixes
        self.opened: list[tuple[Sequence, Role]] = []

    def open(self, model: CausalLM, role: Role, prompt_ids: ReadOnly[int], capacity: int) -> Sequence:
        """Return a sequence that has read as much of its prompt as is kept; see `Sequence` for the arguments."""
        cache = self._prefixes.memory.take(model, prompt_ids, capacity) if self._prefixes.enabled else None
        sequence = Sequence(model, prompt_ids, capacity, cache)
        self.opened.append((sequence, role))
        return sequence
