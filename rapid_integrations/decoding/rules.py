"""What every output token of a request has to follow."""

from __future__ import annotations

from dataclasses import dataclass

from rapid_integrations.sampling import Constraint, Law, Penalties


@dataclass(frozen=True)
class Rules:
    """What every output token of a request has to follow.

    Attributes:
        law: what the output follows at a position.
        vocab_size: V, the width that the logits of all models share.
        penalty: grows with the output; the loop keeps it up to date.
        eos_token_ids: any of these ends the answer.
        constraint: what the output may look like. It is the law's mask, and the loop keeps it up to date. None allows
            everything.
    """

    law: Law
    vocab_size: int
    penalty: Penalties
    eos_token_ids: frozenset[int] = frozenset()
    constraint: Constraint | None = None
