"""What the command line shows: progress, the chunks that the drafter read, and tables of figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Task as ProgressTask
from rich.table import Table
from rich.text import Text

from rapid_integrations.outputs import Completion, DecodeStats, RetrievedChunk, Usage

_PREVIEW_CHARACTERS = 72
_NAME_CHARACTERS = 28
_JOINERS = "\u200c\u200d\u200e\u200f\u00ad\u200b\u2028\u2029\u3000\u00a0\u2009\u202f"


class _AmountColumn(MofNCompleteColumn):
    """Bytes for downloads, counts for everything else."""

    _bytes = DownloadColumn()

    def render(self, task: ProgressTask) -> Text:
        return self._bytes.render(task) if task.description.startswith("download") else super().render(task)


class ProgressView:
    """A progress line per stage, on standard error, gone when the work is done. Call it as an `OnProgress`.

    It appears with the first report of unfinished work and goes when everything that was reported is done, so one view
    serves all stages of a request whoever asks for them. Leaving its `with` block takes it away in any case; the block
    may be entered again. Of several views at once the first is shown. In a notebook it is a `NotebookProgress`; where
    standard error is no terminal, nothing is shown.

    Args:
        console: None: one on standard error.
    """

    _one_at_a_time = threading.Lock()

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._lock = threading.RLock()  # reports come from worker threads
        self._line: Progress | NotebookProgress | None = None
        self._notebook: NotebookProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._unfinished: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a stage is done."""
        with self._lock:
            if done < total:
                self._unfinished.add(stage)
            elif stage not in self._unfinished:
                return  # done at once
            else:
                self._unfinished.remove(stage)
            if self._line is None and not self._start():
                return
            self._show(stage, done, total)
            if not self._unfinished:
                self.stop()

    def stop(self) -> None:
        """Take the lines away; later reports bring them back."""
        with self._lock:
            self._unfinished.clear()
            if self._line is not None:
                self._line.stop()
                self._line, self._tasks = None, {}
                self._one_at_a_time.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> bool:
        shows = self._console.is_jupyter or self._console.is_terminal
        if not shows or not self._one_at_a_time.acquire(blocking=False):
            return False
        if self._console.is_jupyter:
            self._line = self._notebook = self._notebook or NotebookProgress()  # one line for all stages
            return True
        self._line = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _AmountColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._line.start()
        return True

    def _show(self, stage: str, done: int, total: int) -> None:
        if isinstance(self._line, NotebookProgress):
            self._line.show(stage, done, total)
        elif self._line is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._line.add_task(stage, total=total)
            self._line.update(self._tasks[stage], completed=done, total=total)


class NotebookProgress:
    """A line of text in a notebook's output. Widgets, which rich would ask for, are an extra that many lack.

    Work that takes less than half a second shows nothing; otherwise the line stays and says how long it took.
    """

    _DELAY_S, _INTERVAL_S = 0.5, 0.2

    def __init__(self) -> None:
        self._began = self._shown_at = time.monotonic()
        self._stages: dict[str, str] = {}
        self._handle: Any = None

    def show(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a stage is done."""
        self._stages[stage] = f"{stage} {done:,} of {total:,}"
        now = time.monotonic()
        if now - self._shown_at >= (self._DELAY_S if self._handle is None else self._INTERVAL_S):
            self._shown_at = now
            self._write()

    def stop(self) -> None:
        """Write the line a last time."""
        if self._handle is not None:
            self._write()

    def _write(self) -> None:
        from IPython.display import display  # whoever runs in a notebook has it

        text = f"{', '.join(self._stages.values())} ({time.monotonic() - self._began:.1f} s)"
        if self._handle is None:
            show: Any = display  # comes without types
            self._handle = show({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)


def printable(text: str) -> str:
    """Return `text` with control characters made visible: a document must not steer the terminal.

    Line breaks and tabs stay; overrides of the writing direction count as control characters.
    """
    return "".join(
        character if character.isprintable() or character in "\n\t" or character in _JOINERS else "\ufffd"
        for character in text
    )


def chunks_table(retrieved: Sequence[RetrievedChunk], names: Sequence[str]) -> Table:
    """Return which chunks the drafter read: document, characters, tokens, score and how each begins."""
    table = Table(title="What the drafter read", title_justify="left", show_edge=False)
    table.add_column("document", overflow="ellipsis", no_wrap=True, max_width=_NAME_CHARACTERS)
    table.add_column("characters", justify="right", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("begins with")
    for chunk in retrieved:
        preview = " ".join(chunk.text.split())[:_PREVIEW_CHARACTERS]
        table.add_row(
            escape(printable(names[chunk.context])),
            f"{chunk.start:,}-{chunk.end:,}",
            f"{chunk.tokens:,}",
            "-" if chunk.score is None else f"{chunk.score:.2f}",
            escape(printable(preview)),
        )
    return table


def stats_table(completion: Completion) -> Table:
    """Return an answer's statistics as one table."""
    table = Table(title="Statistics", title_justify="left", show_edge=False, show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in _figures(completion.finish_reason, completion.usage, completion.stats):
        table.add_row(name, value)
    return table


def _figures(finish_reason: str, usage: Usage, stats: DecodeStats) -> list[tuple[str, str]]:
    rate = stats.acceptance_rate
    drafting = "nothing drafted" if rate is None else f"{rate:.0%} of {stats.drafted_tokens:,}"
    eta = stats.eta if isinstance(stats.eta, str) else f"{stats.eta:g}"
    law = stats.law if stats.law == "target" else f"{stats.law} (eta {eta})"
    return [
        ("target", stats.target),
        ("drafter", stats.drafter or "none"),
        *([("draft model", stats.draft_lm)] if stats.draft_lm else []),
        ("law", law),
        ("proposer", stats.proposer),
        ("context found by", stats.segmentation),
        ("target read", _read(usage.prompt_tokens, stats.cached_prompt_tokens)),
        ("drafter read", _read(usage.drafter_prompt_tokens, stats.cached_drafter_tokens)),
        *([("question's words in that", f"{covered:.0%}")] if (covered := stats.query_coverage) is not None else []),
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
