"""Adapters for LangChain's text splitters, embeddings, retrievers and document compressors, for use by the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import BaseModel

from rapid_integrations.compression import (
    ContextCompressor,
    HostEmbedder,
    Passage,
    PassageCompressor,
    Rerank,
    Split,
    Tokenizer,
    usable_score,
)
from rapid_integrations.errors import ConfigurationError

_CHUNK = "rapid_chunk"  # metadata key: which chunk a document was made from
_SCORES = ("relevance_score", "score", "query_similarity_score", "similarity_score")


def embedder_of(embeddings: Embeddings) -> HostEmbedder:
    """Wrap LangChain's `Embeddings` as an embedder of the engine."""
    return HostEmbedder(
        name=str(getattr(embeddings, "model_name", None) or getattr(embeddings, "model", type(embeddings).__name__)),
        fingerprint=fingerprint_of(embeddings),
        embed_texts=embeddings.embed_documents,
        embed_question=embeddings.embed_query,
    )


def splitter_of(text_splitter: Any) -> Split:
    """Return a function that cuts a text into consecutive pieces with a `TextSplitter`.

    Raises:
        ConfigurationError: the object has no `split_text`.
    """
    if not callable(getattr(text_splitter, "split_text", None)):
        raise ConfigurationError(
            f"text_splitter={text_splitter!r:.200} has no split_text: give a TextSplitter, for instance "
            "RecursiveCharacterTextSplitter(chunk_size=2000, chunk_overlap=0)"
        )

    def split(text: str) -> list[str]:
        # Splitters for Markdown and HTML return documents.
        pieces = text_splitter.split_text(text)
        return [piece.page_content if isinstance(piece, Document) else str(piece) for piece in pieces]

    return split


def reranker_of(compressor: BaseDocumentCompressor) -> Rerank:
    """Wrap a document compressor as a function over passages. It may filter, reorder, rescore or rewrite them."""

    def rerank(query: str, passages: Sequence[Passage]) -> list[Passage]:
        documents = [Document(page_content=passage.text, metadata={_CHUNK: passage.chunk}) for passage in passages]
        kept = compressor.compress_documents(documents, query) or []
        scores = _scores(kept)
        return [
            Passage(document.page_content, score, document.metadata[_CHUNK])
            for document, score in zip(kept, scores, strict=True)
            if isinstance(document.metadata.get(_CHUNK), int)
        ]

    return rerank


def retrieving(
    retriever: BaseRetriever,
    compressor: BaseDocumentCompressor | None,
    tokenizer: Tokenizer,
    otherwise: ContextCompressor,
) -> PassageCompressor:
    """Return a compressor that keeps what `retriever` finds in the context. If that is nothing, `otherwise` decides."""

    def retrieve(query: str) -> list[Passage]:
        documents: Sequence[Document] = retriever.invoke(query) or []
        if compressor is not None:
            documents = compressor.compress_documents(documents, query) or []
        scores = _scores(documents)
        return [
            Passage(document.page_content, -float(rank) if score is None else score)
            for rank, (document, score) in enumerate(zip(documents, scores, strict=True))
        ]

    return PassageCompressor(retrieve, tokenizer, otherwise, source="retriever")


def fingerprint_of(part: object) -> str:
    """Return a fingerprint of a part and its settings. It is a hash, because settings may contain a secret key."""
    settings = part.model_dump() if isinstance(part, BaseModel) else getattr(part, "__dict__", {})
    # Values that JSON cannot represent are written with their address, so each object has its own fingerprint.
    text = json.dumps(settings, sort_keys=True, default=repr, skipkeys=True)
    return f"{type(part).__module__}.{type(part).__qualname__} {hashlib.sha256(text.encode()).hexdigest()}"


def _scores(documents: Sequence[Document]) -> list[float | None]:
    """Return the documents' scores, or None for all if any has no score. Most retrievers only give an order."""
    found: list[float | None] = []
    for document in documents:
        values = (usable_score(document.metadata.get(name), "the retriever or reranker") for name in _SCORES)
        found.append(next((value for value in values if value is not None), None))
    return found if all(score is not None for score in found) else [None] * len(found)
