"""Adapters for LlamaIndex's node parsers, embedding models, retrievers and post-processors, for use by the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.node_parser import NodeParser
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import Document, NodeWithScore, QueryBundle, TextNode

from llama_index_rapid.pipeline_scores import PIPELINE_SCORES, texts_of
from rapid_integrations.compression import (
    Compression,
    ContextCompressor,
    HostEmbedder,
    Passage,
    PassageCompressor,
    Rerank,
    Split,
    Tokenizer,
    usable_score,
)
from rapid_integrations.config import CompressionConfig
from rapid_integrations.progress import OnProgress

_CHUNK = "rapid_chunk"  # metadata key: which chunk a node was made from
_NEARLY_ALL = 0.9  # share of a context that scored nodes must cover, so that their scores decide


def embedder_of(model: BaseEmbedding) -> HostEmbedder:
    """Wrap LlamaIndex's `BaseEmbedding` as an embedder of the engine."""
    settings = json.dumps(model.to_dict(), sort_keys=True, default=str).encode()
    return HostEmbedder(
        name=model.model_name,
        fingerprint=f"{type(model).__qualname__} {hashlib.sha256(settings).hexdigest()}",  # settings may have secrets
        embed_texts=model.get_text_embedding_batch,
        embed_question=model.get_query_embedding,
        batch_size=model.embed_batch_size,
    )


def splitter_of(node_parser: NodeParser) -> Split:
    """Return a function that cuts a text into consecutive pieces with a node parser."""

    def split(text: str) -> list[str]:
        nodes = node_parser.get_nodes_from_documents([Document(text=text)])
        return [node.text for node in nodes if isinstance(node, TextNode)]

    return split


def reranker_of(postprocessors: Sequence[BaseNodePostprocessor]) -> Rerank:
    """Wrap the post-processors, applied in sequence, as a function over passages."""

    def rerank(query: str, passages: Sequence[Passage]) -> list[Passage]:
        nodes = [
            NodeWithScore(
                node=TextNode(
                    text=passage.text,
                    metadata={_CHUNK: passage.chunk},
                    excluded_llm_metadata_keys=[_CHUNK],
                    excluded_embed_metadata_keys=[_CHUNK],
                ),
                score=passage.score,
            )
            for passage in passages
        ]
        kept = _postprocess(nodes, query, postprocessors)
        return [
            Passage(node.text, usable_score(node.score, "a node post-processor"), node.metadata[_CHUNK])
            for node in kept
            if isinstance(node.metadata.get(_CHUNK), int)
        ]

    return rerank


def retrieving(
    retriever: BaseRetriever,
    postprocessors: Sequence[BaseNodePostprocessor],
    tokenizer: Tokenizer,
    otherwise: ContextCompressor,
) -> PassageCompressor:
    """Return a compressor that keeps what `retriever` finds in the context. If that is nothing, `otherwise` decides."""

    def retrieve(query: str) -> list[Passage]:
        nodes = _postprocess(retriever.retrieve(query) or [], query, postprocessors)
        scores = [usable_score(node.score, f"the retriever {type(retriever).__name__}") for node in nodes]
        if any(score is None for score in scores):  # keyword retrievers only give an order
            scores = [-float(rank) for rank in range(len(nodes))]
        return [Passage(text, score) for node, score in zip(nodes, scores, strict=True) for text in texts_of(node)]

    return PassageCompressor(retrieve, tokenizer, otherwise, source="retriever")


@dataclass(frozen=True)
class ReusingPipelineScores:
    """A compressor that reuses the scores of the pipeline's own retrieval. Without scores, `otherwise` decides."""

    tokenizer: Tokenizer
    otherwise: ContextCompressor

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """See `ContextCompressor`."""
        passages = PIPELINE_SCORES.passages(query, contexts)
        found = PassageCompressor(
            lambda _: passages, self.tokenizer, self.otherwise, least_coverage=_NEARLY_ALL, source="pipeline"
        )
        return found.compress(contexts, query, config, on_progress)


def _postprocess(
    nodes: list[NodeWithScore], query: str, postprocessors: Sequence[BaseNodePostprocessor]
) -> list[NodeWithScore]:
    for postprocessor in postprocessors:
        nodes = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(query)) or []
    return nodes
