"""Progress lines in a terminal or a notebook, for the commands and for both host frameworks."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Task as ProgressTask
from rich.text import Text


class _AmountColumn(MofNCompleteColumn):
    """Shows bytes for downloads and counts for everything else."""

    _bytes = DownloadColumn()

    def render(self, task: ProgressTask) -> Text:
        return self._bytes.render(task) if task.description.startswith("download") else super().render(task)


class ProgressView:
    """A progress line for each stage on standard error. It disappears when the work is done. Use it as an `OnProgress`.

    The lines appear with the first report of unfinished work and disappear when all reported work is done, so one view
    serves all stages of a request. Leaving the `with` block removes them in any case. The block may be entered again.
    If there are several views at once, only the first is shown. In a notebook, a `NotebookProgress` is shown. If
    standard error is not a terminal, nothing is shown.

    Args:
        console: where to write; None writes to standard error.
    """

    _one_at_a_time = threading.Lock()

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._lock = threading.RLock()  # reports come from several callers' threads
        self._line: Progress | NotebookProgress | None = None
        self._notebook: NotebookProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._unfinished: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of a stage are done."""
        with self._lock:
            if done < total:
                self._unfinished.add(stage)
            elif stage not in self._unfinished:
                return  # finished with its first report
            else:
                self._unfinished.remove(stage)
            if self._line is None and not self._start():
                return
            self._show(stage, done, total)
            if not self._unfinished:
                self.stop()

    def stop(self) -> None:
        """Remove the lines. Later reports show them again."""
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
    """A line of text in a notebook's output. Rich would need widgets, which many installations lack.

    Work that takes less than half a second shows nothing. Otherwise the line stays and shows the time it took.
    """

    _DELAY_S, _INTERVAL_S = 0.5, 0.2

    def __init__(self) -> None:
        self._began = self._shown_at = time.monotonic()
        self._stages: dict[str, str] = {}
        self._handle: Any = None

    def show(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of a stage are done."""
        self._stages[stage] = f"{stage} {done:,} of {total:,}"
        now = time.monotonic()
        if now - self._shown_at >= (self._DELAY_S if self._handle is None else self._INTERVAL_S):
            self._shown_at = now
            self._write()

    def stop(self) -> None:
        """Write the line one last time."""
        if self._handle is not None:
            self._write()

    def _write(self) -> None:
        from IPython.display import display  # every notebook has it

        text = f"{', '.join(self._stages.values())} ({time.monotonic() - self._began:.1f} s)"
        if self._handle is None:
            show: Any = display  # it has no type annotations
            self._handle = show({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)
