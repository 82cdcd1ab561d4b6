"""Retrieved documents back in the order in which they were written."""

from __future__ import annotations

import math
from collections.abc import Iterable

from langchain_core.documents import Document

_FILE = ("source", "file_path", "file_name")
_PAGE = ("page", "page_number", "page_label")
_START = ("start_index", "start_char_idx", "seq_num")


def in_document_order(documents: Iterable[Document]) -> list[Document]:
    """Return `documents` file by file, page by page, each page in its own order; a link of a chain.

        {"context": retriever | in_document_order | format_documents, "question": RunnablePassthrough()} | prompt | llm

    Retrievers return documents by score: the text arrives shuffled, and shuffled anew for every question, so that no
    prefix is ever shared with the question before. Text splitters write the place with `add_start_index=True`.
    Documents that do not say where they stand keep their order, behind those of their page that do.
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
