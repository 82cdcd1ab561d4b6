"""Which requests may run: as many as have room for their KV caches, in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rapid_integrations.errors import OutOfMemoryError

if TYPE_CHECKING:
    from rapid_integrations.engine.job import Job


class Admission:
    """Admits requests while the KV caches of all that run fit a budget. What they share counts once.

    Args:
        nbytes: the budget, in bytes.
        in_use: returns the bytes of the caches that running requests have now.
    """

    def __init__(self, nbytes: int, in_use: Callable[[], int]) -> None:
        self.nbytes = nbytes
        self._in_use = in_use
        self._promised: dict[Job, int] = {}  # what each running request needs of its own

    def require(self, nbytes: int, tokens: int) -> None:
        """Raise an error for a request that could never run.

        Args:
            nbytes: what it needs if it shares nothing.
            tokens: that it would hold.

        Raises:
            OutOfMemoryError: it needs more than the whole budget.
        """
        if nbytes > self.nbytes:
            raise OutOfMemoryError(
                f"this request needs {nbytes:,} bytes of KV cache for {tokens:,} tokens, and kv_cache_bytes allows "
                f"{self.nbytes:,} for all requests together. Shorten the document, ask for fewer new tokens, or allow "
                "more",
                code="kv_budget",
            )

    def fits(self, job: Job) -> bool:
        """Whether a request may run beside those that do. One that is alone may always run."""
        if not self._promised:
            return True
        to_come = sum(max(0, nbytes - running.held()) for running, nbytes in self._promised.items())
        return self._in_use() + to_come + job.need() <= self.nbytes

    def enter(self, job: Job) -> None:
        """Count a request that begins."""
        self._promised[job] = job.need()

    def leave(self, job: Job) -> None:
        """Count a request no more."""
        self._promised.pop(job, None)
