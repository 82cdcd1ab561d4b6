"""Show questions in turn and at once as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from rapid_integrations.benchmarks.figures import COLOURS, METHOD_LABELS, figures_table, new_figure, save_figure
from rapid_integrations.benchmarks.together import STAGES, TogetherResult

_WAY_LABELS = {"turn": "in turn", "threads": "threads", "tasks": "tasks", "batch": "batch"}
_MIB = 2**20


def together_table(result: TogetherResult) -> Table:
    """Return a row for each method, stage and way to ask."""
    summary = result.summary()
    table = figures_table(
        f"{result.questions} questions about one document, {result.prompt_tokens:,} tokens of prompt",
        ["method", "stage", "asked"],
        ["seconds", "faster", "CPU s", "less", "tokens/s", "rows", "KV MiB", "same"],
        [
            "whole: nothing was cached, the document is read. decoding: all prompts were cached. asked: in turn, or at",
            "once. faster, less: seconds in turn over seconds at once. rows: of a decoding pass. KV MiB: most bytes of",
            "all KV caches, the kept ones included. same: answers that are those in turn.",
            *(line for method in summary["methods"] for line in _notes(result, method)),
            *(f"{_WAY_LABELS[way]}: left out, {reason.rstrip('.')}." for way, reason in result.skipped.items()),
        ],
    )
    for method, row in summary["methods"].items():
        for stage in STAGES:
            for way, cells in row[stage].items():
                first = way == "turn"
                table.add_row(
                    METHOD_LABELS[method] if first and stage == STAGES[0] else "",
                    stage if first else "",
                    _WAY_LABELS[way],
                    *_cells(cells, first, result.questions),
                )
    return table


def together_plot(result: TogetherResult, path: Path) -> None:
    """Write the seconds of all questions as bars, a panel for each stage.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    methods = result.summary()["methods"]
    figure, axes = new_figure(9.0, 1.6 + 0.34 * sum(len(row[STAGES[0]]) for row in methods.values()), len(STAGES))
    for panel, stage in zip(axes, STAGES, strict=True):
        bars = [(method, way, cells) for method, row in methods.items() for way, cells in row[stage].items()][::-1]
        colours = [COLOURS[list(methods).index(method)] for method, _, _ in bars]
        panel.barh(range(len(bars)), [cells["wall_s"] for _, _, cells in bars], color=colours, height=0.62)
        labels = [f"{METHOD_LABELS[method]}, {_WAY_LABELS[way]}" for method, way, _ in bars]
        panel.set_yticks(range(len(bars)), labels, fontsize=8)
        panel.set_xlabel("seconds", fontsize=9)
        panel.set_title(f"{stage}, {result.questions} questions", fontsize=9)
    figure.suptitle(f"{result.target}, {result.prompt_tokens:,} tokens, {result.machine['device']}", fontsize=9)
    save_figure(figure, path)


def _cells(row: dict[str, Any], first: bool, questions: int) -> list[str]:
    kv = f"{row['kv_bytes'] / _MIB:,.1f}" if "kv_bytes" in row else "-"
    return [
        f"{row['wall_s']:.2f}",
        "" if first else f"{row['faster']:.2f}x",
        f"{row['cpu_s']:.2f}",
        "" if first else f"{row['less_cpu']:.2f}x",
        f"{row['tps']:.1f}",
        f"{row['rows_per_pass']:.2f}" if "rows_per_pass" in row else "-",
        kv,
        f"{row['same']}/{questions}",
    ]


def _notes(result: TogetherResult, method: str) -> list[str]:
    pace, label = result.pace[method], METHOD_LABELS[method]
    whole = result.summary()["methods"][method]["whole"]
    most = max(row["kv_of_one"] for row in whole.values())
    return [
        f"{label}: one question takes {result.kv_of_one[method] / _MIB:,.1f} MiB of KV caches, all of them up to "
        f"{most:.2f} times as much. {result.seeded_same[method]} of {result.questions} seeded samples are the same.",
        f"{label}: alone, an answer gets {pace.alone_tps:.1f} tokens/s with gaps of at most {pace.alone_gap_s:.2f} s. "
        f"While another request reads a new document, it gets {pace.beside_tps:.1f} with gaps of at most "
        f"{pace.beside_gap_s:.2f} s. That request takes {pace.other_beside_s:.1f} s, alone {pace.other_alone_s:.1f}.",
    ]
