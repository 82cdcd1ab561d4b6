"""Several drafters as one: q is the weighted mean of their distributions at each position."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.rules import Rules


class SeveralDrafters(Drafter):
    """Writes and scores drafts with the mean of several drafters, each over its own reader.

    Drafters that have the target's weights are read in its pass. The others read one after another.

    Args:
        members: at least one, of this process.
        weights: of each, positive; they sum to 1.
        rules: of the request.
    """

    def __init__(self, members: Sequence[Drafter], weights: Sequence[float], rules: Rules) -> None:
        super().__init__(members[0].reader, rules)
        self._members, self._weights = tuple(members), tuple(weights)

    @property
    def members(self) -> tuple[Drafter, ...]:
        """The drafters."""
        return self._members

    def scores(self, positions: int) -> bool:
        """Whether all drafters know the logits behind the first `positions` draft tokens."""
        return all(each.scores(positions) for each in self._members)

    def score(self, draft: Sequence[int], parents: Sequence[int] | None = None) -> Steps[None]:
        """Have each drafter read what it still needs; see `Drafter.score`."""
        for each in self._members:
            yield from each.score(draft, parents)

    def wants(self, draft: Sequence[int], parents: Sequence[int] | None = None) -> Rows | None:
        """Not to be called: the members say what they want."""
        raise NotImplementedError("each of `members` is asked")

    def logits(self, position: int) -> Tensor:
        """Not to be called: their mean is formed after penalties."""
        raise NotImplementedError("`penalised` is asked, or each of `members`")

    def penalised(self, position: int, before: Sequence[int]) -> Tensor:
        """Return the logits (V,) of the mean of the drafters' distributions after penalties."""
        logits = [each.penalised(position, before) for each in self._members]
        return self._rules.law.mixed(logits, self._weights)

    def keep(self, tokens: int) -> None:
        """Have each drafter forget all draft tokens but the first `tokens`."""
        for each in self._members:
            each.keep(tokens)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of each drafter's text."""
        for each in self._members:
            each.commit(token_ids)
