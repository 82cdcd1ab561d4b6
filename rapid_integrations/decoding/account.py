"""What drafts have gained and cost so far, so that a request loses little by them whatever is proposed."""

from __future__ import annotations

PER_TOKEN = 0.02
"""Passes that each token of the output adds: the share of the time that may be lost where no draft is ever right."""
FIRST = 0.5
"""Passes that copies may lose at the beginning, to find out how often they are right."""
FIRST_OF_A_WRITER = 1.0
"""The same of drafts that somebody writes. They cost more to try, and are right more often."""


class Account:
    """The gain of drafts over plain decoding, in passes without a draft.

    Plain decoding gives a token for each pass. So a round gains its accepted tokens, and costs what its draft adds to a
    pass: the proposer's own work, and further rows. A draft is only made if the account covers its cost in the case
    that every token is rejected. So after n tokens, drafts have cost at most `first` + `PER_TOKEN` * n passes more than
    they gave, as far as the costs are right. Nothing but the past of the text decides, so the law is unchanged.

    Args:
        first: passes that may be lost at the beginning.

    Attributes:
        passes: how much there is.
    """

    def __init__(self, first: float) -> None:
        self.passes = first

    def covers(self, more: float) -> bool:
        """Whether a draft that adds `more` passes may be made."""
        return more <= self.passes

    def book(self, accepted: int, more: float) -> None:
        """Take note of a round that gave `accepted` draft tokens and one more, and cost 1 + `more` passes."""
        self.passes += accepted - more + PER_TOKEN * (accepted + 1)
