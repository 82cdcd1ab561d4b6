"""Sorting retrieved documents into their original order."""

from __future__ import annotations

import math
from collections.abc import Iterable

from langchain_core.documents import Document

_FILE = ("source", "file_path", "file_name")
_PAGE = ("page", "page_number", "page_label")
_START = ("start_index", "start_char_idx", "seq_num")


def in_document_order(documents: Iterable[Document]) -> list[Document]:
    """Return `documents` sorted by file, page and position. Use it as a link of a chain.

        {"context": retriever | in_document_order | format_documents, "question": RunnablePassthrough()} | prompt | llm

    Retrievers return documents by score. Their order then differs for every question, so prompts share no prefix. Text
    splitters store the position with `add_start_index=True`. Documents without a position keep their order, after the
    others of their page.
    """
    return sorted(documents, key=_place)


def _place(document: Document) -> tuple[str, float, float]:
    metadata = document.metadata
    file = next((str(metadata[name]) for name in _FILE if metadata.get(name)), "")
    return file, _number(metadata, _PAGE, otherwise=0.0), _number(metadata, _START, otherwise=math.inf)


def _number(metadata: dict[str, object], names: tuple[str, ...], otherwise: float) -> float:
    for name in names:
        try:
            return float(str(metadata[name]))
        except (KeyError, ValueError):
            continue
    return otherwise
