"""Show the waits for a first token as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from rapid_integrations.benchmarks.figures import (
    COLOURS,
    METHOD_LABELS,
    figures_table,
    new_figure,
    save_figure,
)
from rapid_integrations.benchmarks.question import QuestionResult
from rapid_integrations.benchmarks.waits import PARTS, PRIOR, STAGES

_PRIOR_NAMES = {"first": "first question", "cold": "cold start"}


def question_table(result: QuestionResult) -> Table:
    """Return the seconds to the first token with its parts, and to the end, for each stage and method."""
    summary = result.summary()
    table = figures_table(
        f"A document's questions, {summary['prompt_tokens']['median']:,.0f} tokens of prompt, {summary['pairs']} pairs",
        ["question", "method"],
        ["1st token", "ratio", *PARTS.values(), "total", "CPU"],
        [
            "Seconds, medians over the pairs. 1st token: from the start of the process for cold start and after",
            "restart, else from the call. Its parts: modules, models, retrieval, the target's prefill (or the loading",
            "of cached rows), the drafter's prefill, the first decoding round; an engine that tells fewer apart has",
            "all of it in the prefill. CPU: processor seconds of the process to the first token. ratio: of the",
            "waits for the first token, to RAPID's.",
            *_comparisons(summary),
            *_reasons(result),
        ],
    )
    for column in table.columns[:2]:
        column.no_wrap = True
    methods = [*result.waits, *(name for name in result.skipped if name not in result.waits)]
    for stage, title in STAGES.items():
        for method in methods:
            row = summary["methods"].get(method, {}).get(stage)
            name = title if method == methods[0] else ""
            if row is None:
                table.add_row(name, METHOD_LABELS[method])
                continue
            parts = [_seconds(row["parts"][part]) if part in row["parts"] else "" for part in PARTS]
            ratio = row["of_rapid"].get("first_token_s")
            table.add_row(
                name,
                METHOD_LABELS[method],
                _seconds(row["first_token_s"]),
                "" if ratio is None else f"{ratio['median']:.2f}",
                *parts,
                _seconds(row["total_s"]),
                _seconds(row["first_token_cpu_s"]),
            )
    return table


def question_plot(result: QuestionResult, path: Path) -> None:
    """Write stacked bars: the parts of the time to the first token, for each stage and method.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    summary = result.summary()
    methods = list(summary["methods"])
    figure, axes = new_figure(8.0, 1.2 + 0.24 * (len(methods) + 1) * len(STAGES))
    longest = max(row["first_token_s"] for stages in summary["methods"].values() for row in stages.values())
    ticks, labels, at = [], [], 0.0
    for stage, title in STAGES.items():
        axes.text(0.004 * longest, at, title, fontsize=8, fontweight="bold", va="center")
        at -= 1
        for method in methods:
            ticks.append(at)
            labels.append(METHOD_LABELS[method])
            row = summary["methods"][method].get(stage)
            if row is None:
                reason = "not in this engine" if stage in result.lacks.get(method, ()) else "did not run"
                axes.text(0.004 * longest, at, reason, fontsize=7, va="center", color=COLOURS[4])
            else:
                left = 0.0
                for part, colour in zip(PARTS, COLOURS, strict=False):
                    seconds = row["parts"].get(part, 0.0)
                    axes.barh(at, seconds, left=left, color=colour, height=0.7)
                    left += seconds
                shown = f"{row['first_token_s']:.3g} s"
                axes.text(left + 0.006 * longest, at, shown, fontsize=7, va="center")
            at -= 1
    handles = [axes.barh(0, 0, color=colour) for _, colour in zip(PARTS, COLOURS, strict=False)]
    axes.legend(handles, list(PARTS.values()), fontsize=8, frameon=False, loc="lower right")
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(at + 0.3, 0.7)
    axes.set_xlim(0, 1.1 * longest)
    axes.set_xlabel("seconds to the first token (cold start, after restart: from the start of the process)", fontsize=9)
    tokens = summary["prompt_tokens"]["median"]
    axes.set_title(f"{result.target}, {tokens:,.0f} prompt tokens, {result.machine['device']}", fontsize=9)
    save_figure(figure, path)


def _comparisons(summary: dict[str, Any]) -> list[str]:
    """Say how much of the earlier stage's wait is left."""
    lines = []
    for method, stages in summary["methods"].items():
        said = []
        for stage, prior in PRIOR.items():
            if (ratio := stages.get(stage, {}).get(f"of_{prior}", {}).get("first_token_s")) is not None:
                least, most = 100 * ratio["min"], 100 * ratio["max"]
                said.append(
                    f"{STAGES[stage]} {100 * ratio['median']:.1f}% of the {_PRIOR_NAMES[prior]} "
                    f"({least:.1f}-{most:.1f})"
                )
        if said:
            lines.append(f"{METHOD_LABELS[method]}: {', '.join(said)}.")
    return lines


def _reasons(result: QuestionResult) -> list[str]:
    """Say why cells are empty."""
    lines = [f"{METHOD_LABELS[name]}: left out, {reason.rstrip('.')}." for name, reason in result.skipped.items()]
    for name, stages in result.lacks.items():
        if name not in result.skipped and name in result.waits:
            lines += [f"{METHOD_LABELS[name]}, {STAGES[stage]}: {reason}." for stage, reason in stages.items()]
    return lines


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"
