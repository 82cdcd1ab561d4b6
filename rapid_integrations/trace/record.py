"""What was seen of an answer. Imports no torch.

Probabilities are before truncation (top-k, top-p, min-p) and before the mask of structured output; greedy ones are at
T = 1. None: that distribution was not formed for the token, because nothing asked for it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Origin = Literal["drafter", "draft_lm", "prompt_lookup", "other", "corrected", "bonus", "target"]
"""Where an output token came from.

A draft that was accepted: of the "drafter", of the "draft_lm", copied by "prompt_lookup", or of an "other" proposer.
"corrected": it replaces a rejected draft token. "bonus": it was added behind a draft that was accepted whole.
"target": nothing had been drafted.
"""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(_Record):
    """A token that a distribution finds probable."""

    token_id: int
    token: str
    probability: float


class RejectedToken(_Record):
    """A draft token that the law did not let stand, and the text of the draft behind it, which went with it."""

    token_id: int
    token: str
    p: float
    q: float | None
    p_hat: float | None
    discarded: str


class TracedToken(_Record):
    """An output token.

    Attributes:
        token: its own text; the name of a control token.
        text: what it added to the answer: "" for the first bytes of a character, which its last token brings.
        p, q, p_hat: its probability for the target, for the drafter, and in the augmented target distribution.
        top_p, top_q, top_p_hat: what each of them finds most probable, best first.
        rejected: what it replaces.
    """

    token_id: int
    token: str
    text: str
    origin: Origin
    p: float
    q: float | None
    p_hat: float | None
    top_p: tuple[Candidate, ...]
    top_q: tuple[Candidate, ...] = ()
    top_p_hat: tuple[Candidate, ...] = ()
    rejected: RejectedToken | None = None

    @property
    def changed_by_retrieval(self) -> bool:
        """Whether p_hat has another best token than p."""
        return bool(self.top_p_hat) and self.top_p_hat[0].token_id != self.top_p[0].token_id


class TracedRound(_Record):
    """One round: its output, how much was drafted and accepted, and its seconds; `elapsed_s` counts from the first."""

    tokens: tuple[TracedToken, ...]
    drafted: int
    accepted: int
    propose_s: float
    score_s: float
    verify_s: float
    elapsed_s: float


class Trace(_Record):
    """Everything that was seen of one answer: the question, the documents, the settings, and each round."""

    question: str
    contexts: tuple[str, ...]
    settings: dict[str, Any]
    rounds: tuple[TracedRound, ...]

    @property
    def tokens(self) -> tuple[TracedToken, ...]:
        """The output tokens, in order."""
        return tuple(token for each in self.rounds for token in each.tokens)
