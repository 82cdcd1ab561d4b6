"""Context compression: the chunks of a long document that a question needs, within a budget of tokens.

    chunker          a text in pieces of at most 512 tokens that tile it exactly
    embedder         pieces and questions to unit vectors; windows: what one vector can be made of;
                     host_embedder: the same over a framework's embedding functions; bge_m3: through FlagEmbedding
    embedding_cache  each text is embedded once
    index            cosine similarity of a question to every piece
    selection        the best pieces within the budget
    query_terms      how much of what the question names they hold
    passages         what a host framework retrieved, found again in the contexts; passage_compressor: selecting it
    compressor       all of it: contexts and a question in, the drafter's contexts out

Importing it loads neither torch nor faiss nor sentence-transformers.
"""

from __future__ import annotations

from rapid_integrations.compression.bge_m3 import BgeM3Embedder
from rapid_integrations.compression.chunker import Chunk, Tokenizer, chunk_text
from rapid_integrations.compression.compressor import Compression, Compressor, ContextCompressor, Rerank, Split
from rapid_integrations.compression.embedder import Embedder, SentenceTransformerEmbedder
from rapid_integrations.compression.embedding_cache import EmbeddingCache
from rapid_integrations.compression.host_embedder import HostEmbedder
from rapid_integrations.compression.index import ChunkIndex
from rapid_integrations.compression.passage_compressor import PassageCompressor
from rapid_integrations.compression.passages import Passage
from rapid_integrations.compression.query_terms import query_coverage, trust_of
from rapid_integrations.compression.selection import ScoredChunk, select, usable_score

__all__ = [
    "BgeM3Embedder",
    "Chunk",
    "ChunkIndex",
    "Compression",
    "Compressor",
    "ContextCompressor",
    "Embedder",
    "EmbeddingCache",
    "HostEmbedder",
    "Passage",
    "PassageCompressor",
    "Rerank",
    "ScoredChunk",
    "SentenceTransformerEmbedder",
    "Split",
    "Tokenizer",
    "chunk_text",
    "query_coverage",
    "select",
    "trust_of",
    "usable_score",
]
