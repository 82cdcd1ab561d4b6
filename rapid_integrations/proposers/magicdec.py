"""The target drafts for itself over few rows of its own cache: the first, the last and those of retrieved passages.

Nothing is prefilled for it. Source: MagicDec (arXiv 2408.11049), whose view is that of StreamingLLM (2309.17453).
Retrieved rows come from TriForce (2404.11912); here the passages are those that the drafter reads.
"""

from __future__ import annotations

from typing import ClassVar, Self

from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import Proposal, ProposerRequest
from rapid_integrations.proposers.drafter import DrafterProposer
from rapid_integrations.proposers.own_cache import sparse_drafter
from rapid_integrations.sampling import Randomness


class MagicDec(DrafterProposer):
    """Lets the target write over a sparse view of its own cache."""

    source: ClassVar[str] = "magicdec"

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the target's cache."""
        drafter, cost = sparse_drafter(request)
        return cls(drafter, request.lengths.of_writer(cost))

    def propose(self, limit: int, rng: Randomness) -> Steps[Proposal]:
        """Draft as many tokens as pay, up to `limit`; none behind a text of one token, which has no rows yet."""
        if not self._model.reader.cache.length:
            return Proposal(())
        return (yield from super().propose(limit, rng))
