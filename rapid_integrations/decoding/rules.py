"""The rules that every output token of a request follows."""

from __future__ import annotations

from dataclasses import dataclass

from rapid_integrations.sampling import Constraint, Law, Penalties


@dataclass(frozen=True)
class Rules:
    """The rules that every output token of a request follows.

    Attributes:
        law: the distribution of the output at a position.
        vocab_size: V, the width that the logits of all models share.
        penalty: grows with the output; the loop keeps it up to date.
        eos_token_ids: any of these ends the answer.
        constraint: the form that the output must have. It is the law's mask, and the loop keeps it up to date. None
            allows everything.
        by_host: the host decides every round, as it has to if another process reads or there are several drafters.
    """

    law: Law
    vocab_size: int
    penalty: Penalties
    eos_token_ids: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    by_host: bool = False

    @property
    def on_device(self) -> bool:
        """Whether rounds of chains are decided where the logits lie, without a wait before the verdict.

        A constraint and the laws "paper" and "lenient" are the host's.
        """
        if self.by_host or self.constraint is not None or self.law.ops.rows is None:
            return False
        return self.law.kind in ("target", "augmented")
