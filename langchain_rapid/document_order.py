"""Sorting retrieved documents into their original order."""

from __future__ import annotations

import math
from collections.abc import Iterable

from langchain_core.documents import Document

_FILE = ("source", "file_path", "file_name")
_CHANGED = ("last_modified", "last_modified_date", "moddate", "creationdate")  # ISO dates, so they sort as texts
_PAGE = ("page", "page_number", "page_label")
_START = ("start_index", "start_char_idx", "seq_num")


def in_document_order(documents: Iterable[Document], *, oldest_first: bool = False) -> list[Document]:
    """Return `documents` sorted by file, page and position. Use it as a link of a chain.

        {"context": retriever | in_document_order | format_documents, "question": RunnablePassthrough()} | prompt | llm

    Retrievers return documents by score. Their order then differs for every question, so prompts share no prefix. Text
    splitters store the position with `add_start_index=True`. Documents without a position keep their order, after the
    others of their page.

    With `oldest_first` (`partial(in_document_order, oldest_first=True)` in a chain), files are sorted by the date of
    their last change at first, if their metadata has one. A new or changed file then comes last, and the text before it
    stays cached.
    """
    placed = sorted(documents, key=_place)
    if not oldest_first:
        return placed
    changed: dict[str, str] = {}
    for document in placed:
        date = next((str(document.metadata[name]) for name in _CHANGED if document.metadata.get(name)), "")
        file = _place(document)[0]
        changed[file] = max(date, changed.get(file, ""))
    return sorted(placed, key=lambda document: (changed[_place(document)[0]], _place(document)[0]))


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
