"""A node post-processor that puts retrieved nodes back in the order of their document."""

from __future__ import annotations

import math

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_rapid.pipeline_scores import PIPELINE_SCORES


class DocumentOrder(BaseNodePostprocessor):
    """Sorts nodes by document and place in it, scores kept. Put it last.

    Retrievers return nodes by score: the document arrives shuffled, and shuffled anew for every question, so that no
    prefix is ever shared with the question before. Files come in the order of their names, so that this does not change
    with the question either; nodes that do not say where they stand keep their order, behind those that do.
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
        return self._postprocess_nodes(nodes, query_bundle)  # a sort: no thread needed


def in_document_order(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    """Return `nodes` file by file, page by page, each page in its own order. The sort is stable."""
    return sorted(nodes, key=_place)


def _place(node: NodeWithScore) -> tuple[str, float, str, float]:
    """Return (file, page, document, character): readers make one document of each page of a PDF."""
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
