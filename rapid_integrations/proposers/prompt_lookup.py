"""Prompt lookup: copy what followed the last tokens where they occurred before.

Answers over documents quote them. No model is asked, so a proposal costs nothing and each token is a point mass.
Source: https://github.com/apoorvumang/prompt-lookup-decoding. Looked up in the retrieved text first (it is about the
question), then in the output, then in the long context.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.proposers.base import Proposal, ProposerRequest
from rapid_integrations.sampling import Randomness

MAX_NGRAM = 4
MIN_NGRAM = 2


class PromptLookup:
    """Proposes the continuation of the longest n-gram that the text ends in and that occurred before.

    Args:
        sources: token sequences to copy from, best first; the output is added as it grows.
        tail: the tokens that the text ends in now.
        eos_token_ids: a proposal ends with the first of these.
        min_ngram: the shortest n-gram whose continuation is copied.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        tail: Sequence[int],
        eos_token_ids: frozenset[int],
        min_ngram: int = MIN_NGRAM,
    ) -> None:
        self._eos = eos_token_ids
        self._min_ngram = min_ngram
        self._sources = [list(source) for source in sources]
        self._output: list[int] = []
        self._tail = list(tail[-MAX_NGRAM:])
        self._indexes = [_NgramIndex(source) for source in self._sources]
        self._output_index = _NgramIndex(self._output)

    @classmethod
    def from_request(cls, request: ProposerRequest) -> PromptLookup:
        """Look up in the drafter's prompt, then in the target's."""
        return cls((request.drafter_ids, request.target_ids), request.target_ids, request.eos_token_ids)

    def propose(self, max_tokens: int, rng: Randomness) -> Proposal:
        """Return what followed the longest match; nothing without one."""
        return Proposal(self.find(max_tokens), source="prompt_lookup")

    def find(self, max_tokens: int) -> tuple[int, ...]:
        """Return at most `max_tokens` tokens that followed the longest match."""
        for length in range(MAX_NGRAM, self._min_ngram - 1, -1):
            gram = tuple(self._tail[-length:])
            if len(gram) < length:
                continue
            first, *others = self._indexes
            for index in (first, self._output_index, *others):
                if copied := index.continuation(gram, max_tokens):
                    return self._up_to_eos(copied)
        return ()

    def commit(self, token_ids: Sequence[int]) -> None:
        """Add to the output, and index it."""
        self._output += token_ids
        self._output_index.catch_up()
        self._tail = [*self._tail, *token_ids][-MAX_NGRAM:]

    def _up_to_eos(self, tokens: list[int]) -> tuple[int, ...]:
        for position, token in enumerate(tokens):
            if token in self._eos:
                return tuple(tokens[: position + 1])
        return tuple(tokens)


class _NgramIndex:
    """Where each n-gram of a growing token list was last followed by something."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self.catch_up()

    def catch_up(self) -> None:
        """Index the n-grams that end before a token which was added since."""
        for end in range(max(self._indexed, MIN_NGRAM), len(self._tokens)):
            for length in range(MIN_NGRAM, min(MAX_NGRAM, end) + 1):
                self._after[tuple(self._tokens[end - length : end])] = end
        self._indexed = len(self._tokens)

    def continuation(self, gram: tuple[int, ...], max_tokens: int) -> list[int]:
        """Return at most `max_tokens` tokens that followed `gram` where it occurred last."""
        start = self._after.get(gram)
        return [] if start is None else self._tokens[start : start + max_tokens]
