"""What a request's proposers learn draft lengths and the shapes of trees with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rapid_integrations.decoding.draft_length import (
    NO_SHARES,
    SHARE_PER_TOKEN,
    AdaptiveDraftLength,
    CostModel,
    DraftLength,
    FixedDraftLength,
    Shares,
)
from rapid_integrations.decoding.row_share import RowShares
from rapid_integrations.decoding.tree_shape import AdaptiveShape, FixedShape, TreeShape

_ROWS_OF_A_TREE = 15  # target and drafter read it in one pass of 32 rows


@dataclass(frozen=True)
class DraftLengths:
    """Makes the choosers of K, one for each way in which a request's proposer guesses.

    Attributes:
        of_copies: makes the chooser for tokens that are copied from a text, which costs nothing.
        of_drafts: makes the chooser for tokens that a language model writes.
        of_trees: makes the chooser for trees of copied tokens.
        of_writer: makes the chooser for tokens of a writer of its own, given the bytes that a token of it moves.
            Whoever scores has to read them, too.
        copies, drafts: model the costs of rounds with tokens that are copied, and that a language model writes.
        measure: whether a choice may depend on a clock.
    """

    of_copies: Callable[[], DraftLength]
    of_drafts: Callable[[], DraftLength]
    of_trees: Callable[[], TreeShape] = lambda: FixedShape(4)
    of_writer: Callable[[float], DraftLength] = lambda cost: FixedDraftLength(4)
    copies: CostModel = CostModel(0.0, 0.0, 1.0, SHARE_PER_TOKEN)
    drafts: CostModel = CostModel(0.25, 0.0, 1.0, SHARE_PER_TOKEN)
    measure: bool = False

    @classmethod
    def fixed(cls, length: int) -> DraftLengths:
        """Return choosers that always choose `length`."""
        return cls(
            lambda: FixedDraftLength(length),
            lambda: FixedDraftLength(length),
            lambda: FixedShape(length),
            lambda cost: FixedDraftLength(length),
        )

    @classmethod
    def adaptive(
        cls,
        most: int,
        *,
        verify: float,
        score: float,
        write: float,
        scores_own_drafts: bool,
        together: bool,
        measure: bool,
        row_share: float = SHARE_PER_TOKEN,
        shares: RowShares | None = None,
    ) -> DraftLengths:
        """Return choosers that learn which K is fastest.

        Args:
            most: the largest K.
            verify, score, write: bytes that a step of one token moves, which is what it costs where memory bandwidth
                is the limit: of the target; of the drafter, 0 if it has no part in the law; of whoever writes drafts.
            scores_own_drafts: the drafter writes the drafts, so that it scores them for nothing.
            together: verifying and scoring are one pass, of which `verify` is the whole.
            measure: costs are learnt from a clock. If not, they stay those given: a seed then reproduces a sample.
            row_share: the share of a pass that a further row adds, before anything was measured.
            shares: what the engine's other requests have measured. Not used without `measure`.
        """
        share = row_share
        if together:  # a draft token is a row of the target, and one of the drafter if that has not written it
            copies = CostModel(0.0, 0.0, verify, 2 * share * verify)
            rows = 1 if scores_own_drafts else 2
            drafts = CostModel(write, 0.0, verify, rows * share * verify)
        else:
            copies = CostModel(0.0, score, verify, share * verify, share * score)
            drafts = replace(copies, propose=write, score_when_accepted=scores_own_drafts)

        def known(way: str, costs: CostModel) -> Shares:
            if shares is None or not measure:
                return NO_SHARES
            guesses = (costs.verify_per_token, costs.verify), (costs.score_per_token, costs.score)
            verify, score = (shares.of((way, part, together), *guess) for part, guess in enumerate(guesses))
            return verify, score

        def length(way: str, costs: CostModel) -> DraftLength:
            return AdaptiveDraftLength(most, costs, measure=measure, shares=known(way, costs))

        return cls(
            lambda: length("copies", copies),
            lambda: length("drafts", drafts),
            lambda: AdaptiveShape(min(most, _ROWS_OF_A_TREE), copies, measure=measure, shares=known("trees", copies)),
            lambda cost: length("writer", replace(copies, propose=cost)),
            copies=copies,
            drafts=drafts,
            measure=measure,
        )
