"""Context compression: selects the chunks of a long document that a question needs, within a budget of tokens.

    chunker          cuts a text into pieces of at most so many tokens that tile it exactly
    embedder         turns pieces and questions into unit vectors; `windows` cuts texts to a model's maximum length,
                     `host_embedder` wraps a framework's embedding functions, `bge_m3` wraps FlagEmbedding
    embedding_cache  embeds each text only once
    index            computes the cosine similarity of a question to every piece
    word_index       computes the BM25 score of a question's words for every piece; `words` splits text of any script,
                     `headings` finds what a piece stands under
    indexed_document holds the pieces of one request's contexts and both indices
    ranking          ranks the pieces by both, with the help of their neighbours
    selection        chooses the best pieces within the budget
    query_terms      measures how much of what the question names the chosen pieces hold
    passages         locates in the contexts what a host framework retrieved; `passage_compressor` selects from it
    cross_encoder    reranks pieces with a model that reads question and piece together (optional)
    joining          joins the chosen pieces, with the labels of their passages
    compressor       runs all of it on contexts and a question, and returns the drafter's contexts

Importing this package loads neither torch nor faiss nor sentence-transformers.
"""

from __future__ import annotations

from rapid_integrations.compression.answerable import answerable
from rapid_integrations.compression.bge_m3 import BgeM3Embedder
from rapid_integrations.compression.chunker import Chunk, Tokenizer, chunk_text
from rapid_integrations.compression.compressor import (
    Compression,
    Compressor,
    ContextCompressor,
    IndexesAhead,
    MeasuresSimilarity,
    Rerank,
    Split,
)
from rapid_integrations.compression.cross_encoder import CrossEncoderReranker
from rapid_integrations.compression.embedder import Embedder, SentenceTransformerEmbedder
from rapid_integrations.compression.embedding_cache import EmbeddingCache
from rapid_integrations.compression.host_embedder import HostEmbedder
from rapid_integrations.compression.index import ChunkIndex
from rapid_integrations.compression.passage_compressor import PassageCompressor
from rapid_integrations.compression.passages import Passage
from rapid_integrations.compression.query_terms import query_coverage, query_presence, trust_of
from rapid_integrations.compression.selection import ScoredChunk, select, usable_score

__all__ = [
    "BgeM3Embedder",
    "Chunk",
    "ChunkIndex",
    "Compression",
    "Compressor",
    "ContextCompressor",
    "CrossEncoderReranker",
    "Embedder",
    "EmbeddingCache",
    "HostEmbedder",
    "IndexesAhead",
    "MeasuresSimilarity",
    "Passage",
    "PassageCompressor",
    "Rerank",
    "ScoredChunk",
    "SentenceTransformerEmbedder",
    "Split",
    "Tokenizer",
    "answerable",
    "chunk_text",
    "query_coverage",
    "query_presence",
    "select",
    "trust_of",
    "usable_score",
]
