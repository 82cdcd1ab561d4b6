"""Lets a trained head propose: EAGLE, Medusa, Hydra, or the layers that predict further tokens (docs/heads.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from rapid_integrations.decoding.draft_length import DraftLength, RoundTimes
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import Committed, HeadWriter, Proposal, Proposer, ProposerRequest
from rapid_integrations.decoding.tree_shape import TreeShape
from rapid_integrations.sampling import Randomness
from rapid_integrations.sampling.trees import path_to


class DraftHeadProposer(Proposer):
    """Proposes a chain of the head's tokens, drawn with its own distributions or chosen greedily.

    Args:
        head: of this request.
        length: chooses K.
    """

    source = "draft_head"

    def __init__(self, head: HeadWriter, length: DraftLength) -> None:
        self._head, self._length = head, length

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the request's head."""
        assert request.draft_head is not None, "the plan opens a head for this proposer"
        return cls(request.draft_head, request.lengths.of_writer(request.draft_head.step_bytes))

    def propose(self, limit: int, rng: Randomness) -> Steps[Proposal]:
        """Draft as many tokens as pay, up to `limit`."""
        return (yield from self._head.draft(min(self._length.next(), limit), rng, self.source))

    def observe(self, times: RoundTimes) -> None:
        """Learn how many tokens pay."""
        self._length.observe(times)

    @property
    def parts(self) -> tuple[Committed, ...]:
        """The head, which follows the text."""
        return (self._head,)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Report the tokens to the head."""
        self._head.commit(token_ids)


class DraftHeadTree(Proposer):
    """Proposes a tree of the head's likeliest continuations, as EAGLE-2 does. Each token is a point mass.

    Args:
        head: of this request.
        shape: chooses how much of the tree is proposed.
        length: chooses how deep it may be. A level costs a step of the head, and no tree may be the best one.
    """

    source = "draft_head_tree"

    def __init__(self, head: HeadWriter, shape: TreeShape, length: DraftLength) -> None:
        self._head, self._shape, self._length = head, shape, length
        self._depth = 0  # of the last tree

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the request's head."""
        assert request.draft_head is not None, "the plan opens a head for this proposer"
        lengths = request.lengths
        return cls(request.draft_head, lengths.of_trees(), lengths.of_writer(request.draft_head.step_bytes))

    def propose(self, limit: int, rng: Randomness) -> Proposal:
        """Return the part of the tree that pays; it may be empty."""
        proposal = self._head.tree(min(self._length.next(), limit), self._shape, self.source)
        parents = proposal.parents or ()
        self._depth = max((len(path_to(parents, each)) for each in range(len(parents))), default=0)
        return proposal

    def observe(self, times: RoundTimes) -> None:
        """Learn what rows cost, and how deep a tree pays."""
        self._shape.observe(times)
        self._length.observe(replace(times, drafted=self._depth))

    @property
    def parts(self) -> tuple[Committed, ...]:
        """The head, which follows the text."""
        return (self._head,)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Report the tokens to the head."""
        self._head.commit(token_ids)
