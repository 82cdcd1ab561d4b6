"""Tables of the commands: the chunks that the drafter read, an answer's sources, and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from rapid_integrations.outputs import Completion, DecodeStats, RetrievedChunk, Usage

if TYPE_CHECKING:
    from rapid_integrations.documents import Documents

_PREVIEW_CHARACTERS = 72
_NAME_CHARACTERS = 28
_JOINERS = "\u200c\u200d\u200e\u200f\u00ad\u200b\u2028\u2029\u3000\u00a0\u2009\u202f"


def printable(text: str) -> str:
    """Return `text` with visible control characters, because a document must not control the terminal.

    Line breaks and tabs stay. Overrides of the writing direction count as control characters.
    """
    return "".join(
        character if character.isprintable() or character in "\n\t" or character in _JOINERS else "\ufffd"
        for character in text
    )


def chunks_table(retrieved: Sequence[RetrievedChunk], names: Sequence[str]) -> Table:
    """Return a table of the drafter's chunks: document, characters, tokens, score and beginning."""
    table = Table(title="What the drafter read", title_justify="left", show_edge=False)
    table.add_column("document", overflow="ellipsis", no_wrap=True, max_width=_NAME_CHARACTERS)
    table.add_column("characters", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("begins with")
    for chunk in retrieved:
        table.add_row(
            escape(printable(names[chunk.context])),
            f"{chunk.start:,}-{chunk.end:,}",
            f"{chunk.tokens:,}",
            "-" if chunk.score is None else f"{chunk.score:.2f}",
            _preview(chunk.text),
        )
    return table


def sources_table(completion: Completion, documents: Documents) -> Table:
    """Return a table of the passages that an answer rests on: sentence, document, page or characters, and text."""
    table = Table(title="What the answer rests on", title_justify="left", show_edge=False)
    table.add_column("answer")
    table.add_column("document", overflow="ellipsis", no_wrap=True, max_width=_NAME_CHARACTERS)
    table.add_column("place", justify="right", no_wrap=True)
    table.add_column("passage")
    before = None
    for source in completion.sources:
        sentence = (source.answer_start, source.answer_end)
        page = documents.documents[source.context].page_at(source.start)
        table.add_row(
            "" if sentence == before else _preview(completion.text[slice(*sentence)]),
            escape(printable(documents.names[source.context])),
            f"{source.start:,}-{source.end:,}" if page is None else f"page {page}",
            _preview(source.text),
        )
        before = sentence
    return table


def _preview(text: str) -> str:
    words = " ".join(text.split())
    cut = words if len(words) <= _PREVIEW_CHARACTERS else words[: _PREVIEW_CHARACTERS - 1] + "…"
    return escape(printable(cut))


def stats_table(completion: Completion) -> Table:
    """Return an answer's statistics as one table."""
    table = Table(title="Statistics", title_justify="left", show_edge=False, show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in _figures(completion.finish_reason, completion.usage, completion.stats):
        table.add_row(name, value)
    return table


def _figures(finish_reason: str, usage: Usage, stats: DecodeStats) -> list[tuple[str, str]]:
    rate, withheld = stats.acceptance_rate, finish_reason == "abstained"
    drafting = "nothing drafted" if rate is None else f"{rate:.0%} of {stats.drafted_tokens:,}"
    eta = stats.eta if isinstance(stats.eta, str) else f"{stats.eta:g}"
    law = {"target": "target", "lenient": "lenient (lossy)"}.get(stats.law, f"{stats.law} (eta {eta})")
    return [
        ("target", stats.target),
        ("drafter", stats.drafter or "none"),
        *([("draft model", stats.draft_lm)] if stats.draft_lm else []),
        *([("draft head", stats.draft_head)] if stats.draft_head else []),
        ("law", law),
        ("proposer", stats.proposer),
        ("context found by", stats.segmentation),
        *([] if withheld else [("target read", _read(usage.prompt_tokens, stats.cached_prompt_tokens))]),
        *([] if withheld else [("drafter read", _read(usage.drafter_prompt_tokens, stats.cached_drafter_tokens))]),
        *([("question's words in that", f"{covered:.0%}")] if (covered := stats.query_coverage) is not None else []),
        *([("documents answer it", f"{says:.0%}")] if (says := stats.answerable) is not None else []),
        ("output", f"{usage.completion_tokens:,} tokens, ended by {finish_reason}"),
        ("draft tokens accepted", drafting),
        ("output tokens per target pass", f"{stats.tokens_per_round:.2f}"),
        ("retrieval", f"{stats.compress_s:.2f} s"),
        ("prefill", f"{stats.prefill_s:.2f} s"),
        ("time to first token", f"{stats.time_to_first_token_s:.2f} s"),
        ("decoding", f"{stats.decode_s:.2f} s, {stats.decode_tps:.1f} tokens/s"),
        ("  drafting / scoring / verifying", f"{stats.propose_s:.2f} / {stats.score_s:.2f} / {stats.verify_s:.2f} s"),
        ("KV caches", f"{stats.cache_bytes / 2**20:,.0f} MiB"),
    ]


def _read(tokens: int, cached: int) -> str:
    return f"{tokens:,} tokens" + (f", {cached:,} of them earlier" if cached else "")
