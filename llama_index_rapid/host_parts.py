"""LlamaIndex's own parts in the places of the engine's: node parser, embedding model, retriever, post-processors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.node_parser import NodeParser
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import Document, NodeWithScore, QueryBundle, TextNode

from llama_index_rapid.pipeline_scores import PIPELINE_SCORES, texts_of
from rapid_integrations.compression import (
    ContextCompressor,
    HostEmbedder,
    Passage,
    PassageCompressor,
    Rerank,
    Split,
    Tokenizer,
)

_CHUNK = "rapid_chunk"  # metadata key: which chunk a node was made from
_NEARLY_ALL = 0.9  # of a context must be scored nodes, separators and headings aside, for their scores to decide


def embedder_of(model: BaseEmbedding) -> HostEmbedder:
    """Return any `BaseEmbedding` as an embedder of the engine."""
    settings = json.dumps(model.to_dict(), sort_keys=True, default=str).encode()
    return HostEmbedder(
        name=model.model_name,
        fingerprint=f"{type(model).__qualname__} {hashlib.sha256(settings).hexdigest()}",  # settings may hold a key
        embed_texts=model.get_text_embedding_batch,
        embed_question=model.get_query_embedding,
        batch_size=model.embed_batch_size,
    )


def splitter_of(node_parser: NodeParser) -> Split:
    """Return the node parser as a function from a text to consecutive pieces of it."""

    def split(text: str) -> list[str]:
        nodes = node_parser.get_nodes_from_documents([Document(text=text)])
        return [node.text for node in nodes if isinstance(node, TextNode)]

    return split


def reranker_of(postprocessors: Sequence[BaseNodePostprocessor]) -> Rerank:
    """Return the post-processors, one after another, as a function over passages."""

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
            Passage(node.text, node.score, node.metadata[_CHUNK])
            for node in kept
            if node.metadata.get(_CHUNK) is not None
        ]

    return rerank


def retrieving(
    retriever: BaseRetriever,
    postprocessors: Sequence[BaseNodePostprocessor],
    tokenizer: Tokenizer,
    otherwise: ContextCompressor,
) -> PassageCompressor:
    """Return a compressor that keeps what `retriever` finds of the context; `otherwise` where it finds nothing."""

    def retrieve(query: str) -> list[Passage]:
        nodes = _postprocess(retriever.retrieve(query), query, postprocessors)
        ranked = any(node.score is None for node in nodes)  # keyword retrievers give an order and no scores
        return [
            Passage(text, -float(rank) if ranked else node.score)
            for rank, node in enumerate(nodes)
            for text in texts_of(node)
        ]

    return PassageCompressor(retrieve, tokenizer, otherwise, source="retriever")


def reusing_pipeline_scores(tokenizer: Tokenizer, otherwise: ContextCompressor) -> PassageCompressor:
    """Return a compressor that goes by the scores of the retrieval that the context came from."""
    return PassageCompressor(
        PIPELINE_SCORES.passages, tokenizer, otherwise, least_coverage=_NEARLY_ALL, source="pipeline"
    )


def _postprocess(
    nodes: list[NodeWithScore], query: str, postprocessors: Sequence[BaseNodePostprocessor]
) -> list[NodeWithScore]:
    for postprocessor in postprocessors:
        nodes = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(query))
    return nodes
