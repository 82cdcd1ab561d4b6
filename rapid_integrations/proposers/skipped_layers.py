"""The target without some of its layers drafts, on its own weights and on rows that it has anyway.

It stands on the drafter's text if the target drafts for itself, else on its own, and needs no prefill and no memory.
Sources: Draft & Verify (arXiv 2309.08168) with layers that are given, SWIFT (2410.06916) with layers that are chosen
during the request (`layer_search.py`). Both also leave out halves of layers; here layers are left out whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from rapid_integrations.decoding.draft_length import DraftLength, RoundTimes
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import Proposal, Proposer, ProposerRequest
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.view_reader import ViewReader
from rapid_integrations.proposers.layer_search import LayerSearch
from rapid_integrations.proposers.own_cache import base_of, parts_of, step_bytes
from rapid_integrations.sampling import Randomness

_SEARCHING = 1.5  # the cost of a draft token whose draft another set of layers reads, too


class SkippedLayers(Proposer):
    """Lets some layers of the target write.

    Args:
        base: the reader whose rows the layers that are kept read.
        rules: of the request.
        length: chooses K.
        layers: the layers to leave out, or the search for them.
    """

    source: ClassVar[str] = "skipped_layers"

    def __init__(self, base: Reader, rules: Rules, length: DraftLength, layers: frozenset[int] | LayerSearch) -> None:
        self._base, self._rules, self._length = base, rules, length
        self._search = layers if isinstance(layers, LayerSearch) else None
        self._skipped = layers.best if isinstance(layers, LayerSearch) else layers
        self._drafter = self._without(self._skipped)
        self._guesses: list[tuple[int, int]] = []  # for each token of the draft: of the best set, of the one on trial
        self._draft: tuple[int, ...] = ()

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the rows of the drafter or of the target."""
        base = base_of(request)
        model, rows = parts_of(base), len(base.tokens)
        whole = step_bytes(model.part(), rows)
        given = request.self_drafting.skip_layers
        search = LayerSearch(model.num_layers, lambda skipped: step_bytes(model.part(skipped), rows) / whole)
        cost = step_bytes(model.part(search.best if given is None else given), rows)
        if given is None:
            cost *= _SEARCHING
        return cls(base, request.rules, request.lengths.of_writer(cost), search if given is None else given)

    def _without(self, skipped: frozenset[int]) -> Drafter:
        return Drafter(ViewReader(self._base, parts_of(self._base).part(skipped)), self._rules)

    def propose(self, limit: int, rng: Randomness) -> Steps[Proposal]:
        """Draft as many tokens as pay, up to `limit`; none behind a text of one token, which has no rows yet.

        A further set of layers, if one is being tried, reads the draft, too.
        """
        self._guesses, self._draft = [], ()
        wanted = min(self._length.next(), limit) if self._base.cache.length else 0
        proposal = yield from self._drafter.draft(wanted, rng, self.source)
        candidate = None if self._search is None or not proposal.token_ids else self._search.candidate()
        if candidate is not None:
            other = self._without(candidate)
            draft = self._draft = proposal.token_ids
            yield from other.score(draft[:-1])
            best = self._rules.law.ops.best
            self._guesses = [
                (best(self._drafter.logits(place)), best(other.logits(place))) for place in range(len(draft))
            ]
        return proposal

    def observe(self, times: RoundTimes) -> None:
        """Learn how many tokens pay."""
        self._length.observe(times)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Compare what both sets of layers guessed with what came, and forget the draft."""
        self._drafter.commit(token_ids)
        search = self._search
        for place, (token, guesses) in enumerate(zip(token_ids, self._guesses, strict=False)):
            if search is None or search.candidate() is None or self._draft[:place] != tuple(token_ids[:place]):
                break
            search.learn(guesses[0] == token, guesses[1] == token)
        if search is not None and search.best != self._skipped:
            self._skipped = search.best
            self._drafter = self._without(search.best)
