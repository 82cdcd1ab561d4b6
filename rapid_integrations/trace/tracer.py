"""Record an answer round by round, from what decoding has computed anyway. No model runs, and no number is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.observer import Round
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.outputs import Candidate, Origin, RejectedToken, Trace, TracedRound, TracedToken
from rapid_integrations.sampling import Law, Penalties

CANDIDATES = 3
_ORIGINS: dict[str, Origin] = {
    "drafter": "drafter",
    "draft_lm": "draft_lm",
    **dict.fromkeys(("prompt_lookup", "retrieval_tree", "datastore"), "prompt_lookup"),
}


class Tracer:
    """An `Observer` that keeps what it sees.

    Args:
        question, contexts, settings: those of the request.
        decode: turns token ids into text, without control tokens.
        name: returns a token's own text, or the name of a control token.
        candidates: number of the most probable tokens of each distribution that are kept.
        decode_finished: like `decode`, without an unfinished character at the end, as an answer's text is. None is
            `decode`.
    """

    def __init__(
        self,
        question: str,
        contexts: Sequence[str],
        settings: dict[str, Any],
        decode: Callable[[Sequence[int]], str],
        name: Callable[[int], str],
        candidates: int = CANDIDATES,
        decode_finished: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        self._question, self._contexts, self._settings = question, tuple(contexts), settings
        self._decode, self._name, self._candidates = decode, name, candidates
        self._text = TextStream(decode, (), decode_finished)
        self._rounds: list[TracedRound] = []
        self._law: Law | None = None
        self._penalty: Penalties | None = None
        self._drafter: Drafter | None = None

    def begin(self, law: Law, penalty: Penalties, drafter: Drafter | None) -> Tracer:
        """Tell what the next rounds are decoded with."""
        # The law before truncation; greedy ones are formed at T = 1.
        self._law = replace(law, temperature=law.temperature or 1.0, top_k=0, top_p=1.0, min_p=0.0)
        self._penalty, self._drafter = penalty, drafter
        return self

    def trace(self) -> Trace:
        """Return what was recorded so far."""
        return Trace(
            question=self._question, contexts=self._contexts, settings=self._settings, rounds=tuple(self._rounds)
        )

    def observe(self, round: Round) -> None:
        """Keep a round's tokens with their probabilities."""
        taken = round.taken
        texts = [self._text.push(token) for token in taken.token_ids]
        if taken.finish_reason is not None and texts:
            texts[-1] += self._text.finish()
        tokens = [
            self._traced(round, position, token, text)
            for position, (token, text) in enumerate(zip(taken.token_ids, texts, strict=True))
        ]
        times = round.times
        self._rounds.append(
            TracedRound(
                tokens=tuple(tokens),
                drafted=times.drafted,
                accepted=round.accepted,
                propose_s=times.propose_s,
                score_s=times.score_s,
                verify_s=times.verify_s,
                elapsed_s=round.elapsed_s,
            )
        )

    def _traced(self, round: Round, position: int, token: int, text: str) -> TracedToken:
        p, q, p_hat = self._distributions(round, position)
        rejected = None
        if position < round.accepted:
            origin = _ORIGINS.get(round.source, "other")
        elif round.corrected:
            origin = "corrected"
            wrong = round.draft[position]
            rejected = RejectedToken(
                token_id=wrong,
                token=self._name(wrong),
                p=float(p[wrong]),
                q=_at(q, wrong),
                p_hat=_at(p_hat, wrong),
                discarded=self._decode(round.draft[position + 1 :]),
            )
        else:
            origin = "bonus" if round.draft else "target"
        return TracedToken(
            token_id=token,
            token=self._name(token),
            text=text,
            origin=origin,
            p=float(p[token]),
            q=_at(q, token),
            p_hat=_at(p_hat, token),
            top_p=self._top(p),
            top_q=self._top(q),
            top_p_hat=self._top(p_hat),
            rejected=rejected,
        )

    def _distributions(self, round: Round, position: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return p, q and p_hat (V,) after the first `position` draft tokens."""
        assert self._law is not None and self._penalty is not None, "begin() comes first"
        law, draft = self._law, round.draft[:position]
        z = self._penalty.apply(round.z[position], draft)
        p = law.softmax(z)
        logits = None if self._drafter is None else self._drafter.known_logits(round.places[position], draft)
        if logits is None:
            return p, None, None
        return p, law.softmax(logits), law.form(z, logits) if law.needs_drafter else None

    def _top(self, probs: Tensor | None) -> tuple[Candidate, ...]:
        if probs is None:
            return ()
        best = probs.topk(min(self._candidates, probs.shape[-1]))
        return tuple(
            Candidate(token_id=index, token=self._name(index), probability=probability)
            for probability, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        )


def _at(probs: Tensor | None, token: int) -> float | None:
    return None if probs is None else float(probs[token])
