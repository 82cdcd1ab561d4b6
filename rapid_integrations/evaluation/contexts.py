"""Contexts that are read in place of the usual ones: a document without its middle, or another document's passages."""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.compression import Compression, ContextCompressor, Tokenizer
from rapid_integrations.config import CompressionConfig
from rapid_integrations.progress import OnProgress


def middle_cut(text: str, tokens: int, tokenizer: Tokenizer) -> str:
    """Return `text` without its middle, so that at most `tokens` tokens remain (the paper's truncation)."""
    starts = [start for start, _ in tokenizer.offsets(text)]
    if len(starts) <= tokens:
        return text
    head = tokens // 2
    tail = tokens - head
    return text[: starts[head]] + (text[starts[len(starts) - tail] :] if tail else "")


class UnrelatedPassages:
    """Retrieves from another document than the question's own.

    Args:
        retriever: the compressor to retrieve with.
        document: the other document.
    """

    def __init__(self, retriever: ContextCompressor, document: str) -> None:
        self._retriever = retriever
        self._document = document

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """Replace the first context by what `query` finds in the other document, and remove the other contexts."""
        found = self._retriever.compress((self._document,), query, config, on_progress)
        rest = len(contexts) - 1
        return Compression(
            (*found.texts, *[""] * rest),
            (*found.selected, *[()] * rest),
            found.context_tokens,
            found.kept_tokens,
            shortened=True,
            source="unrelated",
            relevance=found.relevance if found.shortened else 1.0,
        )
