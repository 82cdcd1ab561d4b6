"""A node post-processor that sorts retrieved nodes into the order of their document."""

from __future__ import annotations

import math

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_rapid.pipeline_scores import PIPELINE_SCORES

_CHANGED = ("last_modified_date", "last_modified", "creation_date")  # ISO dates, so they sort as texts


class DocumentOrder(BaseNodePostprocessor):
    """Sorts nodes by document and position, and keeps their scores. Put it last.

    Retrievers return nodes by score. Their order then differs for every question, so prompts share no prefix. Files are
    sorted by name, because that order does not depend on the question either. Nodes without a position keep their
    order, after the others.

    With `oldest_first`, files are sorted by the date of their last change at first ("last_modified_date", which
    `SimpleDirectoryReader` notes). A new or changed file then comes last, and the text before it stays cached.
    """

    oldest_first: bool = False

    @classmethod
    def class_name(cls) -> str:
        """Name for serialisation."""
        return "DocumentOrder"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is not None:
            PIPELINE_SCORES.remember(query_bundle.query_str, nodes)
        return in_document_order(nodes, oldest_first=self.oldest_first)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return self._postprocess_nodes(nodes, query_bundle)  # sorting is fast, so it needs no thread


def in_document_order(nodes: list[NodeWithScore], *, oldest_first: bool = False) -> list[NodeWithScore]:
    """Return `nodes` sorted by file, page and position; files by age if `oldest_first`. The sort is stable."""
    placed = sorted(nodes, key=_place)
    if not oldest_first:
        return placed
    changed: dict[str, str] = {}
    for node in placed:
        date = next((str(node.node.metadata[name]) for name in _CHANGED if node.node.metadata.get(name)), "")
        changed[document_of(node)] = max(date, changed.get(document_of(node), ""))
    return sorted(placed, key=lambda node: (changed[document_of(node)], document_of(node)))


def document_of(node: NodeWithScore) -> str:
    """Return the file that a node comes from, or else the document."""
    metadata = node.node.metadata
    return str(metadata.get("file_path") or metadata.get("file_name") or node.node.ref_doc_id or "")


def _place(node: NodeWithScore) -> tuple[str, float, str, float]:
    """Return (file, page, document, character). The page matters, because PDF readers make a document of each page."""
    metadata = node.node.metadata
    document = node.node.ref_doc_id or ""
    start = node.node.start_char_idx if isinstance(node.node, TextNode) else None
    return document_of(node), _page(metadata.get("page_label")), document, math.inf if start is None else float(start)


def _page(label: object) -> float:
    try:
        return float(str(label))
    except ValueError:
        return 0.0
