"""Show seconds to the first token as a table and as a plot."""

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
from rapid_integrations.benchmarks.question import PARTS, STAGES, QuestionResult

_STAGE_LABELS = {"first": "first", "ahead": "read ahead", "second": "second", "restart": "from disk"}
_PART_LABELS = {
    "retrieval_s": "retrieval",
    "target_s": "target",
    "drafter_s": "drafter",
    "first_round_s": "1st round",
}


def question_table(result: QuestionResult) -> Table:
    """Return the seconds to the first token with its parts, and to the end, for each method and stage."""
    summary = result.summary()
    table = figures_table(
        f"A document's questions, {summary['prompt_tokens']['median']:,.0f} tokens of prompt, {summary['pairs']} pairs",
        ["method", "question"],
        ["first token", *_PART_LABELS.values(), "total"],
        [
            "Seconds, medians over the pairs. first token: from the call; its parts: retrieval, the target's prefill",
            "(loading a cached prefix included), the drafter's prefill, the first decoding round; total: whole answer.",
            *_percents(summary),
            *(f"{METHOD_LABELS[name]}: left out, {reason.rstrip('.')}." for name, reason in result.skipped.items()),
        ],
    )
    for method, stages in summary["methods"].items():
        for stage, row in stages.items():
            own = stage == "restart" or "restart" in stages
            parts = [f"{row[part]:.3f}" if own else "-" for part in PARTS]
            table.add_row(
                METHOD_LABELS[method] if stage == "first" else "",
                _STAGE_LABELS[stage],
                f"{row['first_token_s']:.3f}",
                *parts,
                f"{row['total_s']:.2f}",
            )
    return table


def question_plot(result: QuestionResult, path: Path) -> None:
    """Write stacked bars: the parts of the time to the first token, for each method and stage.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    summary = result.summary()
    rows = [(m, stage, row) for m, stages in summary["methods"].items() for stage, row in stages.items()][::-1]
    figure, axes = new_figure(7.5, 1.4 + 0.36 * len(rows))
    for part, colour in zip(PARTS, COLOURS, strict=False):
        lefts = [sum(row[before] for before in PARTS[: PARTS.index(part)]) for _, _, row in rows]
        axes.barh(range(len(rows)), [row[part] for _, _, row in rows], left=lefts, color=colour, height=0.62)
    axes.legend([_PART_LABELS[part] for part in PARTS], fontsize=8, frameon=False)
    axes.set_yticks(
        range(len(rows)), [f"{METHOD_LABELS[m]}, {_STAGE_LABELS[stage]}" for m, stage, _ in rows], fontsize=8
    )
    axes.set_xlabel("seconds to the first token", fontsize=9)
    tokens = summary["prompt_tokens"]["median"]
    axes.set_title(f"{result.target}, {tokens:,.0f} prompt tokens, {result.machine['device']}", fontsize=9)
    save_figure(figure, path)


def _percents(summary: dict[str, Any]) -> list[str]:
    lines = []
    for method, stages in summary["methods"].items():
        for stage in STAGES[1:]:
            if (percent := stages.get(stage, {}).get("percent_of_first")) is None:
                continue
            said = [
                f"{name} {percent[figure]['median']:.1f}% ({percent[figure]['min']:.1f}-{percent[figure]['max']:.1f})"
                for figure, name in (
                    ("target_s", "target's share"),
                    ("first_token_s", "first token"),
                    ("total_s", "total"),
                )
                if figure in percent
            ]
            lines.append(f"{METHOD_LABELS[method]}, {_STAGE_LABELS[stage]} to first question: {', '.join(said)}.")
    return lines
