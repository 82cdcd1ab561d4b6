"""Contexts that a drafter reads instead of the retrieved chunks: another document's passages, or a sparse view."""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.compression import Chunk, Compression, ContextCompressor, ScoredChunk, Tokenizer
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError
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


class SinksAndRecent:
    """Keeps the beginning and the end of a context, like a StreamingLLM cache, for every question.

    MagicDec drafts with the target's own KV cache, of which only the first tokens ("sinks") and the latest ones are
    attended to. Here the model prefills the kept tokens again in a cache of its own. The positions are
    consecutive, as in StreamingLLM. The kept rows are computed without the tokens between, so they carry nothing of
    those.

    Args:
        tokenizer: the model's tokenizer.
        sinks: number of tokens kept at the beginning.
        recent: number of tokens kept at the end; None keeps the rest of the retrieval budget.
    """

    def __init__(self, tokenizer: Tokenizer, sinks: int, recent: int | None) -> None:
        self._tokenizer = tokenizer
        self._sinks = sinks
        self._recent = recent

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """Keep the first and the last tokens of the only context."""
        if len(contexts) != 1:
            raise ConfigurationError(f"magicdec takes one document; the prompt has {len(contexts)} contexts")
        text = contexts[0]
        starts = [start for start, _ in self._tokenizer.offsets(text)]
        recent = max(1, config.budget(len(starts)) - self._sinks) if self._recent is None else self._recent
        if self._sinks + recent >= len(starts):
            whole = ScoredChunk(Chunk(0, 0, len(text), text, len(starts)), None)
            return Compression((text,), ((whole,),), len(starts), len(starts), shortened=False, source="whole")
        edges = ((0, 0, starts[self._sinks]), (1, starts[-recent], len(text)))
        chunks = [
            Chunk(index, start, end, text[start:end], self._sinks if index == 0 else recent)
            for index, start, end in edges
        ]
        return Compression(
            ("".join(chunk.text for chunk in chunks),),
            (tuple(ScoredChunk(chunk, None) for chunk in chunks),),
            len(starts),
            self._sinks + recent,
            shortened=True,
            source="sinks and recent",
        )
