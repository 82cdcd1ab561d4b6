"""A tree of what followed the same words in the user's own texts, which `rapid datastore build` has indexed.

Source: REST (arXiv 2311.08252). The proposers `retrieval_tree` and `tree_hybrid` also look there, if a request names a
datastore. This one looks nowhere else but in the answer.
"""

from __future__ import annotations

from typing import ClassVar, Self

from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.decoding.proposal import ProposerRequest
from rapid_integrations.proposers.retrieval_tree import GrowingSource, RetrievalTree, stored_sources


class DatastoreTree(RetrievalTree):
    """Proposes a tree of continuations that were found in a datastore."""

    source: ClassVar[str] = "datastore"

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the request's datastore."""
        assert request.datastore is not None, "the plan requires one for this proposer"
        output = GrowingText()
        sources = [GrowingSource(output), *stored_sources(request)]
        return cls(sources, output, request.target_ids, request.rules.eos_token_ids, request.lengths.of_trees())
