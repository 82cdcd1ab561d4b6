"""Finds the passages of the contexts that an answer rests on, sentence by sentence. No model takes part.

A sentence and the passage that it was drawn from share rare words: names, numbers, technical terms. The question's
words count, too, but less, since "40 million pounds" occurs in several places and the question says which is meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from rapid_integrations.compression.chunker import LINE_END, SENTENCE_END
from rapid_integrations.compression.passage_labels import LabelsOf
from rapid_integrations.compression.word_index import index_terms
from rapid_integrations.errors import SharedResource
from rapid_integrations.outputs import Source

_PASSAGE_WORDS = 60  # a passage has the fewest sentences that hold so many words
_LONGEST_SENTENCE = 600  # characters; text without line or sentence ends is cut after so many
_QUESTION = 0.3  # weight of the question's terms beside the answer's
_LENGTH = 0.4  # by which share a passage's score is divided by its length
_LEAST = 0.35  # share of a sentence's distinctive terms that its passages have to hold
_FURTHER = 0.3  # ... that a second or third passage has to add
_RECENT_DOCUMENTS = 8
_MOST = 3  # passages for one sentence

_DEFINES = "def class function func fn sub struct interface enum trait type const let var"
_NAME_IN_CODE = re.compile(r"[^\W\d]\w*(?=\()|[^\W\d]\w*_\w*|[^\W\d_]*[a-z][A-Z]\w*|(?<=`)[^\W\d]\w*(?=`)")

Term: TypeAlias = str | tuple[str, str]  # a word's beginning (see `index_terms`), or two neighbouring ones


class RecentSources(SharedResource):
    """Finds sources, and keeps the indices of the latest documents. Threads may share it."""

    def __init__(self) -> None:
        self._finder = lru_cache(_RECENT_DOCUMENTS)(SourceFinder)

    def find(self, contexts: tuple[str, ...], question: str, answer: str) -> tuple[Source, ...]:
        """Return the passages of `contexts` that each sentence of `answer` rests on; see `SourceFinder.find`."""
        return self._finder(contexts).find(answer, question) if contexts and answer.strip() else ()


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a context: a sentence, or several."""

    context: int
    start: int
    end: int


class SourceFinder:
    """An index over the sentences of `contexts`. Threads may share it."""

    def __init__(self, contexts: Sequence[str]) -> None:
        self._contexts = tuple(contexts)
        self._labels = [LabelsOf(text) for text in contexts]
        self._sentences: list[_Part] = []
        self._holders: dict[Term, list[int]] = {}  # the sentences that hold a term, ascending
        words: list[int] = []
        lasts: list[int] = []  # (n,): a passage that begins with sentence i ends before lasts[i]
        for context, text in enumerate(contexts):
            labelled = None
            for start, end in sentences(text):
                if (passage := self._labels[context].passage_at(start)) != labelled:
                    lasts += [len(self._sentences)] * (len(self._sentences) - len(lasts))
                    labelled = passage
                terms = index_terms(text[start:end])
                for term in _with_pairs(terms):
                    self._holders.setdefault(term, []).append(len(self._sentences))
                words.append(len(terms))
                self._sentences.append(_Part(context, start, end))
            lasts += [len(self._sentences)] * (len(self._sentences) - len(lasts))
        self._ends = _passage_ends(words, lasts)  # (n,): the passage that begins with sentence i ends before ends[i]
        total = np.concatenate([[0], np.cumsum(words)])
        lengths = np.maximum(total[self._ends] - total[:-1], _PASSAGE_WORDS)  # (n,) words; the last ones are shorter
        # A sentence is in so many passages: a word that the contexts lack weighs as much as one that occurs once.
        self._once = int(np.mean(self._ends - np.arange(len(words)))) if words else 0
        self._penalty = 1 - _LENGTH + _LENGTH * lengths / max(1.0, float(lengths.mean() if len(lengths) else 1.0))

    def find(self, answer: str, question: str) -> tuple[Source, ...]:
        """Return the passages that each sentence of `answer` rests on, best first, in the order of the sentences.

        A sentence without any is not supported by the contexts, or says nothing of its own ("Yes.").
        """
        asked = _with_pairs(index_terms(question))
        found: list[Source] = []
        for start, end in sentences(answer):
            said = answer[start:end]
            for passage, score in self._passages_for(_with_pairs(index_terms(said)) | _definitions(said), asked):
                found.append(
                    Source(
                        answer_start=start,
                        answer_end=end,
                        context=passage.context,
                        start=passage.start,
                        end=passage.end,
                        text=self._contexts[passage.context][passage.start : passage.end],
                        label=self._label_of(passage),
                        score=round(score, 4),
                    )
                )
        return tuple(found)

    def _passages_for(self, said: set[Term], asked: set[Term]) -> Iterator[tuple[_Part, float]]:
        """Yield the passages that hold the terms of a sentence, best first, each with what it adds to those before."""
        n = len(self._sentences)
        holds = {term: self._passages_with(term) for term in said | asked}  # each (n,) bool
        weights = {term: _weight(max(self._once, int(mask.sum())), n) for term, mask in holds.items()}
        words = [term for term in said if isinstance(term, str)]
        everything = math.fsum(weights[term] for term in words)
        if not n or not everything:
            return
        hints = sum((_QUESTION * weights[term] * holds[term] for term in asked - said), start=np.zeros(n))
        missing, free = said, np.ones(n, dtype=bool)
        for number in range(_MOST):
            values = (hints + sum(weights[term] * holds[term] for term in missing)) / self._penalty
            best = int(np.where(free, values, -1.0).argmax())
            added = math.fsum(weights[term] for term in words if term in missing and holds[term][best]) / everything
            if not free[best] or added < (_FURTHER if number else _LEAST):
                return
            there = [term for term in weights if holds[term][best]]
            heavy = max(weights[term] for term in there) / 3
            yield self._trimmed(best, [term for term in there if weights[term] >= heavy]), added
            missing = {term for term in missing if not holds[term][best]}
            free &= ~self._overlaps(best)

    def _passages_with(self, term: Term) -> np.ndarray:
        """Return (n,) whether each passage holds `term`."""
        n = len(self._sentences)
        holders = np.asarray(self._holders.get(term, ()), dtype=np.int64)
        firsts = np.searchsorted(self._ends, holders, side="right")  # the first passage that reaches each
        steps = np.bincount(firsts, minlength=n + 1) - np.bincount(holders + 1, minlength=n + 1)
        return np.asarray(np.cumsum(steps[:n]) > 0)

    def _overlaps(self, passage: int) -> np.ndarray:
        """Return (n,) whether each passage shares a sentence with `passage`."""
        begins = np.arange(len(self._ends))
        return np.asarray((begins < self._ends[passage]) & (self._ends > passage))

    def _trimmed(self, passage: int, terms: Sequence[Term]) -> _Part:
        """Return the passage without the sentences at its edges that hold none of its heavy `terms`."""
        within = range(passage, int(self._ends[passage]))
        holding = sorted({at for term in terms for at in self._holders.get(term, ()) if at in within})
        first, last = (self._sentences[at] for at in (holding[0], holding[-1]))
        return _Part(first.context, first.start, last.end)

    def _label_of(self, part: _Part) -> str | None:
        passage = self._labels[part.context].passage_at(part.start)
        return None if passage is None else self._contexts[part.context][passage.start : passage.body].strip() or None


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence of `text` in characters, without white space around it.

    A line's end also ends a sentence. One of over 600 characters is cut between words.
    """
    begin = 0
    for cut in sorted({match.end() for pattern in (SENTENCE_END, LINE_END) for match in pattern.finditer(text)}):
        yield from _stripped(text, begin, cut)
        begin = cut
    yield from _stripped(text, begin, len(text))


def _stripped(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    while begin < end:
        cut = end
        if end - begin > _LONGEST_SENTENCE:
            space = text.rfind(" ", begin, begin + _LONGEST_SENTENCE)
            cut = space if space > begin else begin + _LONGEST_SENTENCE
        piece = text[begin:cut]
        if piece.strip():
            yield begin + len(piece) - len(piece.lstrip()), begin + len(piece.rstrip())
        begin = cut


def _passage_ends(words: Sequence[int], lasts: Sequence[int]) -> np.ndarray:
    """Return (n,) the end of the passage that begins with each sentence: the first with enough `words` (n,).

    It ends before `lasts` (n,) at the latest, where its context or its labelled part does.
    """
    ends = np.zeros(len(words), dtype=np.int64)
    end = held = 0
    for begin, last in enumerate(lasts):
        if end <= begin:
            end, held = begin, 0
        while end < last and held < _PASSAGE_WORDS:
            held += words[end]
            end += 1
        ends[begin] = end
        held -= words[begin]
    return ends


def _with_pairs(terms: Sequence[str]) -> set[Term]:
    return {*terms, *zip(terms, terms[1:], strict=False)}


def _definitions(sentence: str) -> set[Term]:
    """Return the pairs of words that define a name in code which `sentence` says: it rests on that, not on its uses."""
    names = [sentence.strip("` .")] if len(sentence.split()) == 1 else _NAME_IN_CODE.findall(sentence)
    firsts = {terms[0] for name in names if (terms := index_terms(name))}
    return {(keyword, first) for keyword in index_terms(_DEFINES) for first in firsts}


def _weight(holders: int, passages: int) -> float:
    """Return the weight of a term that `holders` of `passages` hold: BM25's inverse document frequency."""
    return math.log(1 + (passages - holders + 0.5) / (holders + 0.5))
