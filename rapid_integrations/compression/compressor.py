"""The compressor: takes contexts and a question, and returns the text that the drafter reads.

Its steps are: chunk, index, search by words and vectors, select within the budget, and join in document order with each
passage's label.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from rapid_integrations.compression.chunker import Chunk, Tokenizer, chunk_passages, chunk_text
from rapid_integrations.compression.embedder import Embedder
from rapid_integrations.compression.embedding_cache import EmbeddingCache
from rapid_integrations.compression.index import ChunkIndex
from rapid_integrations.compression.indexed_document import IndexedDocument
from rapid_integrations.compression.joining import join_chunks, label_tokens, runs_of
from rapid_integrations.compression.passage_labels import LabelsOf
from rapid_integrations.compression.passages import Passage, cut_at
from rapid_integrations.compression.ranking import fused, with_neighbours, with_second_round
from rapid_integrations.compression.selection import (
    ScoredChunk,
    relevance_of,
    scored,
    select_positions,
    usable_score,
)
from rapid_integrations.compression.word_index import index_terms
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError, PromptError, SharedResource
from rapid_integrations.progress import OnProgress

_RECENT_DOCUMENTS = 8
_RERANKED, _RERANKED_TOKENS = 4, 8192  # a reranker gets the best chunks of four budgets, or of so many tokens

Split: TypeAlias = Callable[[str], Sequence[str]]
Rerank: TypeAlias = Callable[[str, Sequence[Passage]], Sequence[Passage]]


@dataclass(frozen=True)
class Compression:
    """The text that replaces each context, and the chunks it is made of.

    `shortened` is False if the contexts are returned unchanged; their chunks then have no score. `kept_tokens` of
    `context_tokens` were selected, counted by the chunker's tokenizer and with the added labels. `relevance` says how
    far the best chunk stands out (see `relevance_of`). It is 1 if the scale of the scores is unknown, or nothing was
    left out. `similarity` is that of the best chunk to the question, as a multiple of the embedder's threshold. It is
    None if it is not known.
    """

    texts: tuple[str, ...]
    selected: tuple[tuple[ScoredChunk, ...], ...]
    context_tokens: int
    kept_tokens: int
    shortened: bool
    source: str = "embedder"
    relevance: float = 1.0
    similarity: float | None = None

    @property
    def passages(self) -> list[str]:
        """The selected chunks of all contexts, in document order, neighbours of one context joined."""
        return [
            "".join(chunk.text for chunk in run)
            for of_context in self.selected
            for run in runs_of([each.chunk for each in of_context])
        ]


class ContextCompressor(Protocol):
    """Anything that shortens contexts to what a question needs: `Compressor`, or a host framework's retriever."""

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """Return a replacement for each of `contexts`; raises `PromptError` for an empty question or no context."""
        ...


@runtime_checkable
class IndexesAhead(Protocol):
    """A compressor that can prepare contexts before the first question about them."""

    def index(self, contexts: Sequence[str], config: CompressionConfig, on_progress: OnProgress | None = None) -> bool:
        """Index `contexts`, so that a question only has to be searched for.

        Returns:
            whether a question shortens them. If they fit the budget, they stay whole, and nothing is indexed.
        """
        ...


@runtime_checkable
class MeasuresSimilarity(Protocol):
    """A compressor that can tell how similar contexts are to a question, also if it would leave them whole."""

    def similarity(
        self, contexts: Sequence[str], query: str, config: CompressionConfig, on_progress: OnProgress | None = None
    ) -> float | None:
        """Return `Compression.similarity`."""
        ...


@dataclass(frozen=True)
class _Found:
    """What a search says of each chunk: its rank value (higher is better), its score for reports, its eligibility.

    `relevance`, `source` and `similarity` are those of `Compression`.
    """

    ranks: list[float]
    scores: list[float]
    eligible: list[bool]
    relevance: float
    source: str
    similarity: float | None = None


class Compressor(SharedResource):
    """Retrieves by words and by embedding similarity. Threads may share it. The latest documents stay indexed.

    - `embedder`: gives chunks and questions their vectors, and the default threshold; None serves `search="words"`.
    - `tokenizer`: counts the chunks' tokens (the target's, so that the budget is in the target's tokens).
    - `cache`: stores embeddings; None keeps them in memory.
    - `split`: replaces the chunker; it cuts a text into consecutive pieces.
    - `rerank`: reorders, filters or rescores the best chunks; it may rewrite their texts.
    """

    settings_of_answers = ("_embedder", "_split", "_rerank")

    def __init__(
        self,
        embedder: Embedder | None,
        tokenizer: Tokenizer,
        cache: EmbeddingCache | None = None,
        *,
        split: Split | None = None,
        rerank: Rerank | None = None,
    ) -> None:
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._split = split
        self._rerank = rerank
        self._cache = EmbeddingCache() if cache is None else cache
        self._documents: OrderedDict[bytes, IndexedDocument] = OrderedDict()
        self._lock = threading.Lock()

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """Keep the chunks of all `contexts` that fit `query` best, within one budget, in document order.

        Adjacent chunks are joined verbatim, and a gap becomes a blank line. If the budget would not shorten the
        contexts, they are returned unchanged and nothing is embedded. `on_progress("embed", done, total)` counts
        windows of text. Raises `PromptError` if the question is blank, or all contexts are.
        """
        if not query.strip():
            raise PromptError(
                "There is nothing to look for in the context: the question is empty. Pass a question.",
                code="empty_question",
            )
        if all(not context.strip() for context in contexts):
            raise PromptError(
                f"There is nothing to answer from: {len(contexts)} contexts were given, and none holds any text. "
                "Pass the document as context."
            )
        document = self._document(contexts, config.chunk_tokens)
        chunks = document.all_chunks
        context_tokens = sum(chunk.tokens for chunk in chunks)
        budget = config.budget(context_tokens)
        if _stays_whole(context_tokens, config):
            return _unchanged(contexts, document, context_tokens)

        found = self._search(document, query, config, on_progress)
        if self._rerank is not None:
            return self._reranked(contexts, query, document, found, config)
        chosen = select_positions(
            document.sized(chunks),
            found.ranks,
            budget,
            -math.inf,
            config.min_chunks,
            eligible=found.eligible,
            always=document.opening(config.opening(budget)),
        )
        compression = compression_of(
            contexts, document.chunks, chunks, found.scores, chosen, found.source, document.labels, self._tokenizer
        )
        return _with_signs(compression, found)

    def similarity(
        self, contexts: Sequence[str], query: str, config: CompressionConfig, on_progress: OnProgress | None = None
    ) -> float | None:
        """See `MeasuresSimilarity`. None with search="words", or for contexts without text."""
        if config.search == "words" or all(not context.strip() for context in contexts):
            return None
        return self._search(self._document(contexts, config.chunk_tokens), query, config, on_progress).similarity

    def index(self, contexts: Sequence[str], config: CompressionConfig, on_progress: OnProgress | None = None) -> bool:
        """See `IndexesAhead.index`. The embeddings go to the cache. The latest documents stay indexed, too."""
        if all(not context.strip() for context in contexts):
            return False
        document = self._document(contexts, config.chunk_tokens)
        if _stays_whole(sum(chunk.tokens for chunk in document.all_chunks), config):
            return False
        if config.search != "vectors":
            document.words()
        if config.search != "words" and self._embedder is not None:
            self._vectors(self._embedder, document, on_progress)
        return True

    def _search(
        self, document: IndexedDocument, query: str, config: CompressionConfig, on_progress: OnProgress | None
    ) -> _Found:
        """Score and rank every chunk of `document` for the question."""
        kinds: list[np.ndarray] = []
        relevance, threshold, source, similarity = 1.0, -math.inf, "words", None
        if config.search != "vectors":
            kinds.append(document.words().scores(index_terms(query)))
            scores = kinds[0].tolist()
        if config.search != "words":
            if self._embedder is None:
                raise ConfigurationError(
                    f'search="{config.search}" needs an embedder, and this compressor has none: give it one, or take '
                    'search="words"'
                )
            scores = self._similarities(self._embedder, document, query, on_progress)
            kinds.append(np.array(scores))
            least = self._embedder.threshold if config.threshold is None else config.threshold
            relevance, source = relevance_of(max(scores), least), "embedder"
            similarity = max(scores) / least if least > 0 else None
            if config.search == "vectors" or config.threshold is not None:
                threshold = least  # otherwise a chunk that words find may have a low similarity
        ranks = fused(kinds)
        if config.rounds > 1 and config.search != "vectors":
            ranks = with_second_round(ranks, document.words(), index_terms(query))
        ranks = with_neighbours(ranks, config.neighbours, document.firsts)
        return _Found(ranks.tolist(), scores, [score >= threshold for score in scores], relevance, source, similarity)

    def _similarities(
        self, embedder: Embedder, document: IndexedDocument, query: str, on_progress: OnProgress | None
    ) -> list[float]:
        """Return each chunk's similarity to the question. NaN, from an embedder that fails on a text, ranks lowest."""
        index = self._vectors(embedder, document, on_progress)
        whose = f"the embedder {getattr(embedder, 'name', type(embedder).__name__)}"
        found = (usable_score(float(score), whose) for score in index.scores(embedder.embed_query(query)))
        return [-math.inf if score is None else score for score in found]

    def _vectors(self, embedder: Embedder, document: IndexedDocument, on_progress: OnProgress | None) -> ChunkIndex:
        report = None if on_progress is None else lambda done, total: on_progress("embed", done, total)
        return document.vectors(embedder, self._cache, report)

    def _reranked(
        self,
        contexts: Sequence[str],
        query: str,
        document: IndexedDocument,
        found: _Found,
        config: CompressionConfig,
    ) -> Compression:
        """Select by the reranker's scores. Their scale is unknown, so no threshold applies to them."""
        assert self._rerank is not None
        chunks, scores = document.all_chunks, found.scores
        everything = sum(chunk.tokens for chunk in chunks)
        budget = config.budget(everything)
        # By similarity alone, the threshold says what is worth reranking. By words too, the best chunks are.
        candidates = everything if config.search == "vectors" else max(_RERANKED * budget, _RERANKED_TOKENS)
        positions = select_positions(
            chunks, found.ranks, candidates, -math.inf, config.min_chunks, eligible=found.eligible
        )
        best_first = sorted(positions, key=lambda position: -found.ranks[position])
        passages = [Passage(chunks[position].text, scores[position], position) for position in best_first]
        # A filter that removes everything is ignored. So are passages that were not made from a chunk.
        ranked = [
            replace(passage, score=None if passage.score is None else usable_score(passage.score, "the reranker"))
            for passage in self._rerank(query, passages) or ()
            if isinstance(passage.chunk, int) and 0 <= passage.chunk < len(chunks)
        ] or passages
        if any(passage.score is None for passage in ranked):
            ranked = [replace(passage, score=-float(rank)) for rank, passage in enumerate(ranked)]
        new_scores, new_chunks = list(scores), list(chunks)
        for passage in ranked:
            assert passage.chunk is not None and passage.score is not None
            new_scores[passage.chunk] = passage.score
            if passage.text != chunks[passage.chunk].text:
                tokens = len(self._tokenizer.offsets(passage.text))
                new_chunks[passage.chunk] = replace(chunks[passage.chunk], text=passage.text, tokens=tokens)
        returned = [passage.chunk for passage in ranked if passage.chunk is not None]
        opening = document.opening(config.opening(budget))
        for position in (unasked := [each for each in opening if each not in returned]):
            new_scores[position] = math.nan  # a reranker's scores have a scale of their own
        returned += unasked
        sized = document.sized(new_chunks)
        chosen = select_positions(
            [sized[position] for position in returned],
            [new_scores[position] for position in returned],
            budget,
            -math.inf,
            config.min_chunks,
            always=[returned.index(position) for position in opening],
        )
        positions = sorted(returned[index] for index in chosen)
        compression = compression_of(
            contexts, document.chunks, new_chunks, new_scores, positions, "reranker", document.labels, self._tokenizer
        )
        return _with_signs(compression, found)

    def _document(self, contexts: Sequence[str], chunk_tokens: int) -> IndexedDocument:
        """Return the chunks of `contexts`, from the recent documents if they are among them."""
        key = _content_key(contexts, chunk_tokens)
        with self._lock:
            document = self._documents.get(key)
            if document is not None:
                self._documents.move_to_end(key)
                return document
        labels = [LabelsOf(text) for text in contexts]
        chunks = tuple(tuple(self._chunks(text, of, chunk_tokens)) for text, of in zip(contexts, labels, strict=True))
        document = IndexedDocument(tuple(contexts), chunks, labels, label_tokens(chunks, labels, self._tokenizer))
        with self._lock:
            document = self._documents.setdefault(key, document)  # another thread may have been faster
            self._documents.move_to_end(key)
            while len(self._documents) > _RECENT_DOCUMENTS:
                self._documents.popitem(last=False)
        return document

    def _chunks(self, text: str, labels: LabelsOf, chunk_tokens: int) -> list[Chunk]:
        if labels.passages and self._split is None:
            return chunk_passages(text, self._tokenizer, [each.start for each in labels.passages], chunk_tokens)
        if self._split is None or not text:
            return chunk_text(text, self._tokenizer, chunk_tokens)
        chunks = cut_at(text, self._split(text), self._tokenizer)
        if chunks is None:
            raise ConfigurationError(
                "the splitter returned no piece that stands in the text it was given, so it rewrites what it cuts; "
                "give one that cuts a text as it is (a sentence, token or recursive character splitter)"
            )
        return chunks


def compression_of(
    contexts: Sequence[str],
    chunks_by_context: Sequence[Sequence[Chunk]],
    chunks: Sequence[Chunk],
    scores: Sequence[float],
    chosen: Sequence[int],
    source: str,
    labels: Sequence[LabelsOf],
    tokenizer: Tokenizer,
) -> Compression:
    """Return the contexts after keeping only the `chosen` positions in `chunks` (of all contexts, one after another).

    `labels` are those of the passages in each context. The `tokenizer` counts the labels that were added.
    """
    selected: list[tuple[ScoredChunk, ...]] = []
    begin = 0
    for of_context in chunks_by_context:
        end = begin + len(of_context)
        selected.append(tuple(scored(chunks[p], scores[p]) for p in chosen if begin <= p < end))
        begin = end
    texts = tuple(
        join_chunks([each.chunk for each in of_context], of) for of_context, of in zip(selected, labels, strict=True)
    )
    added = sum(
        len(tokenizer.offsets(text)) - sum(each.chunk.tokens for each in of_context)
        for text, of_context, of in zip(texts, selected, labels, strict=True)
        if of.passages
    )
    shortened = texts != tuple(contexts)
    return Compression(
        texts,
        tuple(selected),
        context_tokens=sum(chunk.tokens for of_context in chunks_by_context for chunk in of_context),
        kept_tokens=sum(chunks[position].tokens for position in chosen) + max(0, added),
        shortened=shortened,
        source=source if shortened else "whole",
    )


def _with_signs(compression: Compression, found: _Found) -> Compression:
    relevance = found.relevance if compression.shortened else compression.relevance
    return replace(compression, relevance=relevance, similarity=found.similarity)


def _stays_whole(context_tokens: int, config: CompressionConfig) -> bool:
    return context_tokens <= max(config.budget(context_tokens), config.chunk_tokens * config.min_chunks)


def _unchanged(contexts: Sequence[str], document: IndexedDocument, context_tokens: int) -> Compression:
    return Compression(
        texts=tuple(contexts),
        selected=tuple(tuple(ScoredChunk(chunk, None) for chunk in of_context) for of_context in document.chunks),
        context_tokens=context_tokens,
        kept_tokens=context_tokens,
        shortened=False,
        source="whole",
    )


def _content_key(contexts: Sequence[str], chunk_tokens: int) -> bytes:
    digest = hashlib.sha256(str(chunk_tokens).encode())
    for context in contexts:
        encoded = context.encode("utf-8", "surrogatepass")
        digest.update(f" {len(encoded)} ".encode() + encoded)  # the length keeps neighbouring contexts apart
    return digest.digest()
