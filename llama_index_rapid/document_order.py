"""A node post-processor that sorts retrieved nodes into the order of their document."""

from __future__ import annotations

import math

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_rapid.pipeline_scores import PIPELINE_SCORES


class DocumentOrder(BaseNodePostprocessor):
    """Sorts nodes by document and position, and keeps their scores. Put it last.

    Retrievers return nodes by score. Their order then differs for every question, so prompts share no prefix. Files are
    sorted by name, because that order does not depend on the question either. Nodes without a position keep their
    order, after the others.
    """

    @classmethod
    def class_name(cls) -> str:
        """Name for serialisation."""
        return "DocumentOrder"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is not None:
            PIPELINE_SCORES.remember(query_bundle.query_str, nodes)
        return in_document_order(nodes)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return self._postprocess_nodes(nodes, query_bundle)  # sorting is fast, so it needs no thread


def in_document_order(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    """Return `nodes` sorted by file, page and position. The sort is stable."""
    return sorted(nodes, key=_place)


def _place(node: NodeWithScore) -> tuple[str, float, str, float]:
    """Return (file, page, document, character). The page matters, because PDF readers make a document of each page."""
    metadata = node.node.metadata
    document = node.node.ref_doc_id or ""
    file = str(metadata.get("file_path") or metadata.get("file_name") or document)
    start = node.node.start_char_idx if isinstance(node.node, TextNode) else None
    return file, _page(metadata.get("page_label")), document, math.inf if start is None else float(start)


def _page(label: object) -> float:
    try:
        return float(str(label))
    except ValueError:
        return 0.0
