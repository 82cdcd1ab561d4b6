"""Which requests may run: as many as have room for their KV caches, in the order in which they came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapid_integrations.errors import OutOfMemoryError

if TYPE_CHECKING:
    from rapid_integrations.engine.job import Job


class Admission:
    """Admits requests while their KV caches together fit a budget.

    Args:
        nbytes: the budget, in bytes.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._promised: dict[Job, int] = {}

    def require(self, nbytes: int, tokens: int) -> None:
        """Raise an error for a request that could never run.

        Args:
            nbytes: what it needs.
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
        """Whether a request may run beside those that do."""
        return sum(self._promised.values()) + job.nbytes <= self.nbytes

    def enter(self, job: Job) -> None:
        """Count a request that begins."""
        self._promised[job] = job.nbytes

    def leave(self, job: Job) -> None:
        """Count a request no more."""
        self._promised.pop(job, None)
