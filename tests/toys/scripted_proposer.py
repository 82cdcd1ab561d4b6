"""A proposer that does what a test tells it to."""

from collections.abc import Callable
from typing import ClassVar

from rapid_integrations.decoding.proposal import Proposal, Proposer


class ScriptedProposer(Proposer):
    """Asks `script(output, max_tokens, rng)` for each proposal; `output` is what was committed so far.

    Register it with `use_script`.
    """

    script: ClassVar[Callable]

    def __init__(self, length):
        self.output = []
        self.length = length

    @classmethod
    def from_request(cls, request):
        return cls(request.lengths.of_drafts())

    def propose(self, limit, rng):
        max_tokens = min(self.length.next(), limit)
        proposal = type(self).script(tuple(self.output), max_tokens, rng)
        assert len(proposal.token_ids) <= max_tokens
        return proposal

    def commit(self, token_ids):
        self.output += token_ids


def use_script(monkeypatch, script):
    """Make `script` the proposer "scripted"; a script may return a list of tokens for a `Proposal` of point masses."""
    from rapid_integrations.proposers import PROPOSERS

    def propose(output, max_tokens, rng):
        proposal = script(output, max_tokens, rng)
        return proposal if isinstance(proposal, Proposal) else Proposal(tuple(proposal[:max_tokens]))

    monkeypatch.setattr(ScriptedProposer, "script", staticmethod(propose), raising=False)
    monkeypatch.setitem(PROPOSERS, "scripted", f"{__name__}:ScriptedProposer")
