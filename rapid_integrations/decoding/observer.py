"""Looking on while an answer comes about, without a say in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.stopping import Taken


@dataclass(frozen=True)
class Round:
    """What a round did, before anything of it is committed.

    Attributes:
        draft: K draft tokens that the target read.
        source: who proposed them: a proposer's registered name, or "".
        z: (K + 1, V) target logits, before penalties.
        accepted: draft tokens that are output.
        corrected: whether a draft token was rejected; the output token behind the accepted ones then replaces it.
        taken: what is output.
        times: seconds of the phases.
        elapsed_s: seconds of decoding up to here.
    """

    draft: tuple[int, ...]
    source: str
    z: Tensor
    accepted: int
    corrected: bool
    taken: Taken
    times: RoundTimes
    elapsed_s: float


class Observer(Protocol):
    """Is shown every round. It must not advance a model, a proposer or the randomness of the request."""

    def observe(self, round: Round) -> None:
        """Look at a round; penalties and the drafter's logits are still those of it."""
        ...
