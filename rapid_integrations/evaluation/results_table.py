"""Show a run's figures as tables in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table

from rapid_integrations.evaluation.statistics import Estimate
from rapid_integrations.evaluation.summary import AVERAGE, EITHER, Summary


def results_table(summary: Summary) -> Table:
    """Return the scores in percent with 95% intervals, a row per method and a column per task."""
    table = _table("Scores (%), 95% intervals")
    table.add_column("method", overflow="fold")
    columns = _columns(summary)
    for task in columns:
        heading = task if task == AVERAGE else f"{task}\n{summary.metric(task)}, n={len(summary.items(task))}"
        table.add_column(heading, justify="right")
    for method in summary.methods:
        table.add_row(method, *(_percent(summary.score(method, _tasks(task))) for task in columns))
    return table


def gains_table(summary: Summary) -> Table | None:
    """Return each method's paired gain over the baseline in points, or None if there is no baseline."""
    if summary.baseline is None:
        return None
    others = [method for method in summary.methods if method != summary.baseline]
    return _gains(summary, f"Gain over {summary.baseline}", others, summary.gain)


def better_table(summary: Summary) -> Table | None:
    """Return the gains over the better of `EITHER` on each task, or None if one is missing or nothing else was run."""
    others = [method for method in summary.methods if method not in EITHER]
    if not others or not set(EITHER) <= set(summary.methods):
        return None
    title = f"Gain over the better of {' and '.join(EITHER)}, task by task"
    return _gains(summary, title, others, summary.gain_over_better)


def _gains(summary: Summary, title: str, methods: Sequence[str], gain: Callable[..., Estimate | None]) -> Table:
    table = _table(f"{title} (points), paired 95% intervals")
    table.add_column("method", overflow="fold")
    columns = _columns(summary)
    for task in columns:
        table.add_column(task, justify="right")
    for method in methods:
        table.add_row(method, *(_signed(gain(method, _tasks(task))) for task in columns))
    return table


def decoding_table(summary: Summary) -> Table:
    """Return the decoding figures of each method."""
    table = _table("Decoding (speeds and times: questions asked alone)")
    table.add_column("method", overflow="fold")
    for name in ("tok/s", f"x {summary.baseline}", "accept", "/pass", "prefill", "answer"):
        table.add_column(name, justify="right", no_wrap=True)
    for method in summary.methods:
        decoding = summary.decoding(method)
        table.add_row(
            method,
            "-" if decoding.tokens_per_s is None else f"{decoding.tokens_per_s:.1f}",
            "-" if (s := decoding.speedup) is None else f"{s.value:.2f}x\n[{s.low:.2f}, {s.high:.2f}]",
            "-" if decoding.acceptance is None else f"{decoding.acceptance:.0%}",
            f"{decoding.tokens_per_round:.2f}",
            "-" if decoding.prefill_s is None else f"{decoding.prefill_s:.1f} s",
            "-" if decoding.seconds is None else f"{decoding.seconds:.1f} s",
        )
    table.caption = (
        "tok/s: of answers of at least 8 tokens; accept: accepted share of the draft; /pass: output tokens "
        "per pass of the answering model; prefill: median if nothing was cached; answer: median wall time.\n"
        "-: no such answers; `--at-once 1` asks questions alone"
    )
    table.caption_justify = "left"
    return table


def groups_table(summary: Summary, task: str) -> Table | None:
    """Return a task's scores by group (difficulty, length, ...), or None if it has no groups."""
    rows = summary.items(task)
    names = list(dict.fromkeys(name for row in rows for name in next(iter(row.values())).groups))
    if not names:
        return None
    table = _table(f"{task} by group (%)")
    table.add_column("method", overflow="fold")
    cells: list[tuple[str, str]] = []
    for name in names:
        values = sorted({next(iter(row.values())).groups.get(name, "") for row in rows})
        cells += [(name, value) for value in values]
    members = {
        cell: [row for row in rows if next(iter(row.values())).groups.get(cell[0], "") == cell[1]] for cell in cells
    }
    for name, value in cells:
        table.add_column(f"{name}\n{value}, n={len(members[name, value])}", justify="right")
    for method in summary.methods:
        means = (sum(row[method].score for row in members[cell]) / len(members[cell]) for cell in cells)
        table.add_row(method, *(f"{100 * mean:.1f}" for mean in means))
    return table


def _tasks(column: str) -> list[str] | None:
    return None if column == AVERAGE else [column]


def _columns(summary: Summary) -> Sequence[str]:
    return [*summary.tasks, AVERAGE] if len(summary.tasks) > 1 else summary.tasks


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}\n[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _signed(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate.value:+.1f}\n[{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
