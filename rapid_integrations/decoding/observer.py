"""The protocol for observers, which see every round of decoding and cannot change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.stopping import Taken


@dataclass(frozen=True)
class Round:
    """The result of a round, before any of it is committed.

    Attributes:
        draft: K draft tokens that the target read; of a tree the accepted path, and the token that was tried first
            behind it.
        places: what `Scorer.logits` calls each of the K + 1 places before, between and behind them.
        source: the registered name of the proposer, or "".
        z: (K + 1, V) target logits at those places, before penalties.
        accepted: number of draft tokens that are output.
        corrected: whether a draft token was rejected. The output token after the accepted ones then replaces it.
        taken: the output of the round.
        times: seconds of the phases.
        elapsed_s: seconds of decoding so far.
    """

    draft: tuple[int, ...]
    places: tuple[int, ...]
    source: str
    z: Tensor
    accepted: int
    corrected: bool
    taken: Taken
    times: RoundTimes
    elapsed_s: float


class Observer(Protocol):
    """Sees every round. It must not advance a model, a proposer or the request's randomness."""

    def observe(self, round: Round) -> None:
        """Inspect a round. Penalties and the drafter's logits still belong to it."""
        ...
