"""Show what retrieval brings as a table, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich import box
from rich.table import Table

from rapid_integrations.errors import MissingExtraError
from rapid_integrations.evaluation.evidence import Retrieved
from rapid_integrations.evaluation.figures import save_picture
from rapid_integrations.evaluation.statistics import Resamples

AVERAGE = "average"
_COLORS = ("#c25b2a", "#7b8794", "#2a6f97", "#6a994e", "#8d6a9f", "#b08900")


def summarise(found: Sequence[Retrieved], seed: int = 0) -> dict[str, dict[str, dict[str, Any]]]:
    """Return figures by settings and set, and under "average" their means over the sets.

    `recall` has a 95% bootstrap interval (`low`, `high`; documents are drawn). `index_s_per_1000_tokens` is the time of
    a document's first question, `question_s` the median time of the others, and `largest_share` the most that the
    drafter read of a document.
    """
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for settings in dict.fromkeys(each.settings for each in found):
        by_set: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(each.set for each in found):
            rows = [each for each in found if each.settings == settings and each.set == name]
            if rows:
                by_set[name] = _figures(rows, seed)
        by_set[AVERAGE] = _average(list(by_set.values()))
        tables[settings] = by_set
    return tables


def _figures(rows: Sequence[Retrieved], seed: int) -> dict[str, Any]:
    recalls = [row.recall for row in rows]
    means = sorted(Resamples.draw([row.document for row in rows], seed).means(recalls))
    firsts = [row for row in rows if row.first]
    later = [row.seconds for row in rows if not row.first]
    tokens = sum(row.document_tokens for row in firsts)
    return {
        "questions": len(rows),
        "documents": len(firsts),
        "recall": fmean(recalls),
        "low": float(means[int(0.025 * len(means))]),
        "high": float(means[int(0.975 * len(means))]),
        "precision": fmean(row.precision for row in rows),
        "share": fmean(row.share for row in rows),
        "largest_share": max(row.share for row in rows),
        "index_s_per_1000_tokens": 1000 * sum(row.seconds for row in firsts) / tokens if tokens else None,
        "question_s": median(later) if later else None,
    }


def _average(sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "questions": sum(each["questions"] for each in sets),
        "documents": sum(each["documents"] for each in sets),
        "largest_share": max(each["largest_share"] for each in sets),
    }
    for name in ("recall", "precision", "share", "index_s_per_1000_tokens", "question_s"):
        values = [each[name] for each in sets if each[name] is not None]
        figures[name] = fmean(values) if values else None
    return figures


def recall_table(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Return evidence recall in percent with its interval, a row per set and a column per settings."""
    table = Table(
        title="Evidence recall (%), 95% intervals", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False
    )
    table.add_column("set", no_wrap=True)
    table.add_column("questions", justify="right")
    for settings in tables:
        table.add_column(settings, justify="right", overflow="fold")
    first = next(iter(tables.values()))
    for name in first:
        cells = [_interval(by_set[name]) for by_set in tables.values()]
        table.add_row(name, str(first[name]["questions"]), *cells)
    return table


def cost_table(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Return precision, the share that the drafter reads, and the time, a row per settings."""
    table = Table(title="Over all sets", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("settings", overflow="fold")
    for name in ("recall", "precision", "read", "most", "index", "question"):
        table.add_column(name, justify="right", no_wrap=True)
    for settings, by_set in tables.items():
        figures = by_set[AVERAGE]
        index, question = figures["index_s_per_1000_tokens"], figures["question_s"]
        table.add_row(
            settings,
            f"{100 * figures['recall']:.1f}%",
            f"{100 * figures['precision']:.1f}%",
            f"{100 * figures['share']:.1f}%",
            f"{100 * figures['largest_share']:.1f}%",
            "-" if index is None else f"{index:.3f} s",
            "-" if question is None else f"{1000 * question:.1f} ms",
        )
    table.caption = (
        "precision: share of the words read that lie in the evidence; read, most: share of the document that the "
        "drafter reads, mean and most; index: per 1,000 tokens, with a document's first question; question: later ones"
    )
    table.caption_justify = "left"
    return table


def draw_recall(tables: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """Write a picture (PNG) with a row per set, and a dot with its 95% interval per settings.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(feature="A plot", extra="eval") from error
    names = list(next(iter(tables.values())))
    figure = Figure(layout="constrained", figsize=(7.2, 0.3 * len(names) * max(1.0, len(tables) / 3) + 1.2))
    axes = figure.subplots()
    step = 0.6 / max(1, len(tables))
    for number, (settings, by_set) in enumerate(tables.items()):
        color = _COLORS[number % len(_COLORS)]
        rows = [row + step * (number - (len(tables) - 1) / 2) for row in range(len(names))]
        recalls = [100 * by_set[name]["recall"] for name in names]
        axes.plot(recalls, rows, "o", color=color, markersize=5, label=settings)
        for row, name in zip(rows, names, strict=True):
            if "low" in by_set[name]:
                axes.plot(
                    [100 * by_set[name]["low"], 100 * by_set[name]["high"]], [row, row], color=color, linewidth=1.6
                )
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 101)
    axes.set_xlabel("evidence that reaches the drafter (%)", fontsize=9)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    save_picture(figure, path)


def _interval(figures: Mapping[str, Any]) -> str:
    shown = f"{100 * figures['recall']:.1f}"
    return f"{shown} [{100 * figures['low']:.0f}, {100 * figures['high']:.0f}]" if "low" in figures else shown
