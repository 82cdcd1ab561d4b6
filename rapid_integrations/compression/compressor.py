"""The compressor: takes contexts and a question, and returns the text that the drafter reads.

Its steps are: chunk, embed, search, select within the budget, and join in document order with each passage's label.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from rapid_integrations.compression.chunker import Chunk, Tokenizer, chunk_passages, chunk_text
from rapid_integrations.compression.embedder import Embedder
from rapid_integrations.compression.embedding_cache import EmbeddingCache
from rapid_integrations.compression.index import ChunkIndex
from rapid_integrations.compression.passage_labels import LabelsOf
from rapid_integrations.compression.passages import Passage, cut_at
from rapid_integrations.compression.selection import (
    ScoredChunk,
    relevance_of,
    scored,
    select_positions,
    usable_score,
)
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError, PromptError, SharedResource
from rapid_integrations.progress import OnProgress

_RECENT_DOCUMENTS = 8

Split: TypeAlias = Callable[[str], Sequence[str]]
Rerank: TypeAlias = Callable[[str, Sequence[Passage]], Sequence[Passage]]


@dataclass(frozen=True)
class Compression:
    """The text that replaces each context, and the chunks it is made of.

    `shortened` is False if the contexts are returned unchanged; their chunks then have no score. `kept_tokens` of
    `context_tokens` were selected, counted by the chunker's tokenizer and with the added labels. `relevance` says how
    far the best chunk stands out (see `relevance_of`). It is 1 if the scale of the scores is unknown, or nothing was
    left out.
    """

    texts: tuple[str, ...]
    selected: tuple[tuple[ScoredChunk, ...], ...]
    context_tokens: int
    kept_tokens: int
    shortened: bool
    source: str = "embedder"
    relevance: float = 1.0


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


class Compressor(SharedResource):
    """Retrieves by embedding similarity. Threads may share it. The latest documents stay indexed.

    - `embedder`: gives chunks and questions their vectors, and the default threshold.
    - `tokenizer`: counts the chunks' tokens (the target's, so that the budget is in the target's tokens).
    - `cache`: stores embeddings; None keeps them in memory.
    - `split`: replaces the chunker; it cuts a text into consecutive pieces.
    - `rerank`: reorders, filters or rescores the chunks that embeddings found relevant; it may rewrite their texts.
    """

    settings_of_answers = ("_embedder", "_split", "_rerank")

    def __init__(
        self,
        embedder: Embedder,
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
        self._documents: OrderedDict[bytes, _Document] = OrderedDict()
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
        chunks = [chunk for of_context in document.chunks for chunk in of_context]
        context_tokens = sum(chunk.tokens for chunk in chunks)
        budget = config.budget(context_tokens)
        if context_tokens <= max(budget, config.chunk_tokens * config.min_chunks):
            return _unchanged(contexts, document, context_tokens)

        index = self._index(document, chunks, on_progress)
        scores = self._scores(index, query)
        threshold = self._embedder.threshold if config.threshold is None else config.threshold
        if self._rerank is None:
            sized = document.sized(chunks)
            chosen = select_positions(sized, scores, budget, threshold, config.min_chunks)
            found = compression_of(
                contexts, document.chunks, chunks, scores, chosen, "embedder", document.labels, self._tokenizer
            )
        else:
            found = self._reranked(contexts, query, document, chunks, scores, config)
        return replace(found, relevance=relevance_of(max(scores), threshold)) if found.shortened else found

    def _scores(self, index: ChunkIndex, query: str) -> list[float]:
        """Return each chunk's similarity to the question. NaN, from an embedder that fails on a text, ranks lowest."""
        whose = f"the embedder {getattr(self._embedder, 'name', type(self._embedder).__name__)}"
        found = (usable_score(float(score), whose) for score in index.scores(self._embedder.embed_query(query)))
        return [-math.inf if score is None else score for score in found]

    def _reranked(
        self,
        contexts: Sequence[str],
        query: str,
        document: _Document,
        chunks: Sequence[Chunk],
        scores: Sequence[float],
        config: CompressionConfig,
    ) -> Compression:
        """Select by the reranker's scores. Their scale is unknown, so no threshold applies to them."""
        assert self._rerank is not None
        threshold = self._embedder.threshold if config.threshold is None else config.threshold
        everything = sum(chunk.tokens for chunk in chunks)
        found = select_positions(chunks, scores, everything, threshold, config.min_chunks)
        best_first = sorted(found, key=lambda position: -scores[position])
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
        candidates = [passage.chunk for passage in ranked if passage.chunk is not None]
        sized = document.sized(new_chunks)
        chosen = select_positions(
            [sized[position] for position in candidates],
            [new_scores[position] for position in candidates],
            config.budget(everything),
            -math.inf,
            config.min_chunks,
        )
        positions = sorted(candidates[index] for index in chosen)
        return compression_of(
            contexts, document.chunks, new_chunks, new_scores, positions, "reranker", document.labels, self._tokenizer
        )

    def _document(self, contexts: Sequence[str], chunk_tokens: int) -> _Document:
        """Return the chunks of `contexts`, from the recent documents if they are among them."""
        key = _content_key(contexts, chunk_tokens)
        with self._lock:
            document = self._documents.get(key)
            if document is not None:
                self._documents.move_to_end(key)
                return document
        labels = [LabelsOf(text) for text in contexts]
        chunks = tuple(tuple(self._chunks(text, of, chunk_tokens)) for text, of in zip(contexts, labels, strict=True))
        document = _Document(chunks, labels, label_tokens(chunks, labels, self._tokenizer))
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

    def _index(self, document: _Document, chunks: Sequence[Chunk], on_progress: OnProgress | None) -> ChunkIndex:
        """Return the index of `document`; the first caller builds it, and other callers wait."""
        report = None if on_progress is None else lambda done, total: on_progress("embed", done, total)
        with document.lock:
            if document.index is None:
                document.index = ChunkIndex.build(chunks, self._embedder, self._cache, report)
            return document.index


@dataclass
class _Document:
    """The chunks of each context, their labels, and their index once a question needed it.

    `label_tokens` has one number for each chunk of all contexts: the tokens of the part of its passage's label that the
    chunk lacks.
    """

    chunks: tuple[tuple[Chunk, ...], ...]
    labels: Sequence[LabelsOf]
    label_tokens: Sequence[int]
    index: ChunkIndex | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sized(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks with the sizes that the budget counts, which include the added labels."""
        return [
            replace(chunk, tokens=chunk.tokens + extra) if extra else chunk
            for chunk, extra in zip(chunks, self.label_tokens, strict=True)
        ]


def label_tokens(
    chunks_by_context: Iterable[Sequence[Chunk]], labels: Iterable[LabelsOf], tokenizer: Tokenizer
) -> list[int]:
    """Return for each chunk the tokens of the label and of the closing text that it lacks of its passage."""
    return [
        len(tokenizer.offsets(of.before(chunk.start) + of.behind(chunk.end))) if of.passages else 0
        for of_context, of in zip(chunks_by_context, labels, strict=True)
        for chunk in of_context
    ]


def join_chunks(chunks: Sequence[Chunk], labels: LabelsOf | None = None) -> str:
    """Return the texts of `chunks` (of one text, in order): neighbours verbatim, a blank line across a gap.

    Existing line breaks count towards the blank line. A chunk from inside a passage of `labels` is put between the
    passage's label and its closing text.
    """
    parts: list[str] = []
    before: Chunk | None = None
    for chunk in chunks:
        head = ""
        if before is None or chunk.index != before.index + 1:
            new = (
                before is None or labels is None or labels.passage_at(before.end - 1) != labels.passage_at(chunk.start)
            )
            if labels is not None and before is not None and new:
                parts.append(labels.behind(before.end))
            head = labels.before(chunk.start) if labels is not None and new else ""
        if before is not None and chunk.index != before.index + 1:
            text = head + chunk.text
            tail = before.text[len(before.text.rstrip()) :] if parts[-1:] == [before.text] or not parts[-1] else ""
            parts.append("\n" * (2 - (tail + text[: len(text) - len(text.lstrip())]).count("\n")))
        parts += [head, chunk.text] if head else [chunk.text]
        before = chunk
    if labels is not None and before is not None:
        parts.append(labels.behind(before.end))
    return "".join(parts)


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


def _unchanged(contexts: Sequence[str], document: _Document, context_tokens: int) -> Compression:
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
