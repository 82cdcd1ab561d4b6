"""A tree of what followed the same words before: in the retrieved text, the answer, the document, earlier answers.

Prompt lookup copies one continuation. Here several are proposed at once, with the chances that their counts and the
measured acceptance give them, and as many as pay. No model runs: each token is a point mass. Sources: RASD (arXiv
2503.03434) for the tree that is merged from texts, SuffixDecoding (2411.04975) for suffixes of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.cache.suffix_index import LONGEST, SuffixIndex
from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.proposal import MOST_TOKENS, Proposal, Proposer, ProposerRequest
from rapid_integrations.decoding.tree_shape import TreeShape
from rapid_integrations.proposers.candidates import Candidate, Rates, Weighted, depth_first, merged
from rapid_integrations.sampling import Randomness

MIN_MATCH = 2  # tokens
MOST_PLACES = 12  # of one text, for one length of match


class IndexedSource:
    """A text with an index.

    Args:
        index: of the text.
        limit: its tokens from here on are not looked at; None: all are.
    """

    def __init__(self, index: SuffixIndex, limit: int | None = None) -> None:
        self._index, self._limit = index, limit

    def find(self, tail: Sequence[int], depth: int) -> list[tuple[int, list[tuple[int, ...]]]]:
        """Return lengths of matches with the continuations behind them, the longest match first."""
        match = self._index.longest(tail, MIN_MATCH)
        if match is None:
            return []
        found = [(match.length, self._index.behind(match, MOST_PLACES, depth, self._limit))]
        if match.length // 2 >= MIN_MATCH:  # others may go on in another way
            shorter = self._index.shorter(tail, match.length // 2)
            if shorter.end - shorter.begin > match.end - match.begin:
                found.append((shorter.length, self._index.behind(shorter, MOST_PLACES, depth, self._limit)))
        return found


class GrowingSource:
    """A text that grows."""

    def __init__(self, text: GrowingText) -> None:
        self._text = text

    def find(self, tail: Sequence[int], depth: int) -> list[tuple[int, list[tuple[int, ...]]]]:
        """Return lengths of matches with the continuations behind them, the longest match first."""
        return [(length, [self._text.after(place, depth)]) for length, place in self._text.matches(tail)[:MOST_PLACES]]


class RetrievalTree(Proposer):
    """Proposes a tree of continuations that were found behind the last tokens.

    Args:
        sources: where to look.
        output: the answer; it grows with what is committed.
        tail: the last tokens of the text so far.
        eos_token_ids: nothing follows them.
        shape: chooses how much of the tree is proposed.
    """

    source: ClassVar[str] = "retrieval_tree"

    def __init__(
        self,
        sources: Sequence[IndexedSource | GrowingSource],
        output: GrowingText,
        tail: Sequence[int],
        eos_token_ids: frozenset[int],
        shape: TreeShape,
    ) -> None:
        self._sources = sources
        self._output = output
        self._tail = list(tail[-LONGEST:])
        self._eos = eos_token_ids
        self._shape = shape
        self._rates = Rates()
        self._found: tuple[int, list[Candidate]] = (0, [])  # the length of the match, and what was found behind it

    @classmethod
    def from_request(cls, request: ProposerRequest) -> Self:
        """Return a proposer over the drafter's prompt, the target's, and answers to questions about the same text."""
        document, shared = request.texts.of(request.target_ids)
        answers = [GrowingSource(each) for each in document.answers]
        output = GrowingText()
        document.answers.append(output)
        sources: list[IndexedSource | GrowingSource] = [
            GrowingSource(output),
            IndexedSource(document.index, None if shared == document.index.size else shared),
            GrowingSource(GrowingText(request.target_ids[shared:])),
            *answers,
        ]
        if request.drafter_ids != request.target_ids:  # the retrieved text counts twice: it is about the question
            sources.append(IndexedSource(SuffixIndex.build(request.drafter_ids)))
        sources += stored_sources(request)
        eos = request.rules.eos_token_ids
        return cls(sources, output, request.target_ids, eos, request.lengths.of_trees())

    def propose(self, limit: int, rng: Randomness) -> Proposal:
        """Return the part of the tree that pays; it may be empty."""
        tokens, parents = self.find(limit)
        return Proposal(tokens, source=self.source, parents=parents)

    def find(self, limit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return tokens and parents of the part of the tree that pays, with paths of at most `limit` tokens."""
        depth, most = min(limit, self._shape.depth), min(self._shape.most, MOST_TOKENS)
        length, continuations = self._continuations(depth)
        candidates = merged(
            continuations,
            lambda level: self._rates(length + level),
            most=most,
            depth=depth,
            last_tokens=self._eos,
        )
        self._found = length, candidates
        return depth_first(candidates[: self._shape.choose([each.chance for each in candidates])])

    @property
    def matched(self) -> int:
        """Number of the text's last tokens behind which the last proposal was found; 0 if nothing was."""
        return self._found[0]

    def _continuations(self, depth: int) -> tuple[int, list[Weighted]]:
        """Return the length of the longest match, and all continuations; that of a longer match weighs more."""
        found = [each for source in self._sources for each in source.find(self._tail, depth)]
        longest = max((length for length, _ in found), default=0)
        return longest, [
            (tokens, float(length**4)) for length, those in found if 2 * length >= longest for tokens in those
        ]

    def observe(self, times: RoundTimes) -> None:
        """Learn what rows cost."""
        self._shape.observe(times)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Add the tokens to the answer, and learn from them how often what was found is right."""
        self._rates.learn(self._found[1], self._found[0], token_ids)
        self._found = 0, []
        self._output.extend(token_ids)
        self._tail = [*self._tail, *token_ids][-LONGEST:]


def stored_sources(request: ProposerRequest) -> list[IndexedSource | GrowingSource]:
    """Return the request's datastore and the answers that it has gained; nothing without one."""
    stored = [] if request.datastore is None else [request.datastore, *request.stored_answers]
    return [IndexedSource(each) if isinstance(each, SuffixIndex) else GrowingSource(each) for each in stored]
