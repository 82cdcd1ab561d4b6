"""A reader that reads on behind another one's text, over a view of that one's cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rapid_integrations.cache import Rows
from rapid_integrations.cache.cache_view import CacheView
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.models.causal_lm import PartOfLM

Runs = Sequence[tuple[int, int]]
RENEWED = 1024  # tokens of the answer after which other rows are looked for


class ViewReader(Reader):
    """Reads a draft over some rows and layers that another reader has, within one round.

    What it reads is forgotten when the text goes on: the other reader's next pass writes in the same place.

    Args:
        base: the other reader. Its cache holds at least one token.
        part: the model, or what is left of it.
        runs: given the length of the text, the positions whose rows are seen; see `CacheView`. None: all.
    """

    def __init__(self, base: Reader, part: PartOfLM, runs: Callable[[int], Runs | None] = lambda length: None) -> None:
        super().__init__(part, base.tokens, 0, base.cache)
        self.tokens = base.tokens  # the same list: it grows with the text
        self.exact = False
        self._base, self._part, self._runs = base, part, runs
        self._view: CacheView | None = None
        self._made = 0  # length of the text for which the view was made
        self._begun = False  # whether it has read in this round

    def wants(self, draft: Sequence[int], keep: int, parents: Sequence[int] | None = None) -> Rows:
        """Return the rows of further draft tokens, which have to be a chain; see `Reader.wants`."""
        view = self._view if self._begun and self._view is not None else self._begin()
        pending = self.tokens[view.position :]
        self._tried += draft
        return Rows(self._ids([*pending, *draft]), view, keep)

    def _begin(self) -> CacheView:
        length = self._base.cache.length
        if self._view is None or length - self._made > RENEWED:
            self._view, self._made = self._part.new_view(self._base.cache, self._runs(length)), length
        self._view.renew()
        self._tried, self._begun = [], True
        return self._view

    def keep(self, tokens: int) -> None:
        """Forget all draft tokens but the first `tokens`."""
        self._tried = self._tried[:tokens]
        if self._begun and self._view is not None:
            behind = self._view.position - len(self.tokens) - len(self._tried)
            self._view.rollback(self._view.length - max(0, behind))

    def forget_draft(self) -> None:
        """Discard what was read in this round."""
        self._begun = False

    def commit(self, token_ids: Sequence[int]) -> None:
        """Discard what was read in this round. The other reader makes the tokens part of the text."""
        self._begun = False
