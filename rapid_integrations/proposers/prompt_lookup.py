"""Prompt lookup copies the tokens that followed an earlier occurrence of the last tokens.

Answers over documents quote them. No model runs, so a proposal costs nothing and each token is a point mass. It
searches the retrieved text first (which is about the question), then the output, then the long context. Source:
https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rapid_integrations.decoding.draft_length import DraftLength, RoundTimes
from rapid_integrations.decoding.proposal import Proposal, Proposer, ProposerRequest
from rapid_integrations.sampling import Randomness

MAX_NGRAM = 4
MIN_NGRAM = 2


class PromptLookup(Proposer):
    """Proposes the continuation of the longest n-gram at the end of the text that occurred before.

    Args:
        sources: token sequences to copy from, best first; the output is added as it grows.
        tail: the last tokens of the text so far.
        eos_token_ids: a proposal ends with the first of these.
        length: chooses K.
        min_ngram: the shortest n-gram whose continuation is copied; at least 2.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        tail: Sequence[int],
        eos_token_ids: frozenset[int],
        length: DraftLength,
        min_ngram: int = MIN_NGRAM,
    ) -> None:
        self._eos = eos_token_ids
        self._length = length
        self._min_ngram = min_ngram
        first, *others = [_Tokens(source) for source in sources]
        self._output = _Tokens(())
        self._sources = [first, self._output, *others]
        self._tail = tuple(tail[-MAX_NGRAM:])

    @classmethod
    def from_request(cls, request: ProposerRequest, min_ngram: int = MIN_NGRAM) -> PromptLookup:
        """Return a proposer that searches the drafter's prompt, then the target's."""
        sources = (request.drafter_ids, request.target_ids)
        eos_token_ids = request.rules.eos_token_ids
        return cls(sources, request.target_ids, eos_token_ids, request.lengths.of_copies(), min_ngram)

    def propose(self, limit: int, rng: Randomness) -> Proposal:
        """Return the tokens after the longest match, or none without a match or if copies do not pay."""
        found = self.find(limit)
        return Proposal(found[: self._length.next()] if found else (), source="prompt_lookup")

    def observe(self, times: RoundTimes) -> None:
        """Learn how many tokens pay."""
        self._length.observe(times)

    def find(self, max_tokens: int, behind: Sequence[int] = ()) -> tuple[int, ...]:
        """Return at most `max_tokens` tokens that followed the longest match, the last one of equal length.

        `behind` are draft tokens that come before them.
        """
        if max_tokens < 1:
            return ()
        tail = (*self._tail, *behind)[-MAX_NGRAM:]
        longest, copied = self._min_ngram - 1, tuple[int, ...]()
        for source in self._sources:
            length, end = source.longest_match(tail)
            if length > longest:
                longest, copied = length, source.after(end, max_tokens)
        return self._up_to_eos(copied)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Add the tokens to the output."""
        self._output.extend(token_ids)
        self._tail = (*self._tail, *token_ids)[-MAX_NGRAM:]

    def _up_to_eos(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        for position, token in enumerate(tokens):
            if token in self._eos:
                return tokens[: position + 1]
        return tokens


class _Tokens:
    """A growing list of tokens, searched from end to end. This takes microseconds, while indexing would take 0.1 s.

    Args:
        tokens: the first tokens.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = np.asarray(tokens, dtype=np.int64)
        self._pairs = _pairs(self._tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens."""
        new = np.asarray(tokens, dtype=np.int64)
        self._pairs = np.concatenate([self._pairs, _pairs(np.concatenate([self._tokens[-1:], new]))])
        self._tokens = np.concatenate([self._tokens, new])

    def longest_match(self, tail: tuple[int, ...]) -> tuple[int, int]:
        """Return the length of the longest end of `tail` that occurs, and the position after its last occurrence.

        A match of fewer than two tokens counts as none: (0, 0).
        """
        known = self._tokens
        if len(tail) < MIN_NGRAM or len(known) <= MIN_NGRAM:
            return 0, 0
        ends = 2 + np.flatnonzero(self._pairs[:-1] == _pair(*tail[-2:]))  # positions of tokens that may be copied
        length = MIN_NGRAM
        if not len(ends):
            return 0, 0
        while length < len(tail):
            longer = ends[ends > length]
            longer = longer[known[longer - length - 1] == tail[-length - 1]]
            if not len(longer):
                break
            ends, length = longer, length + 1
        return length, int(ends[-1])

    def after(self, position: int, max_tokens: int) -> tuple[int, ...]:
        """Return at most `max_tokens` tokens from `position` on."""
        return tuple(self._tokens[position : position + max_tokens].tolist())


def _pair(first: int, second: int) -> int:
    """Return two ids as one number, so one comparison finds a pair."""
    return (first << 32) + second


def _pairs(tokens: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return (tokens[:-1] << 32) + tokens[1:]
