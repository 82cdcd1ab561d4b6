"""Show the proposers as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from rapid_integrations.benchmarks.figures import ACCENT, GREY, figures_table, new_figure, save_figure
from rapid_integrations.benchmarks.proposers import BASELINE, ProposersResult


def proposers_table(result: ProposersResult) -> Table:
    """Return a row for each kind of question and proposer."""
    summary = result.summary()
    table = figures_table(
        f"{summary['questions']} questions, law {summary['law']}, at most {summary['prompt_tokens']['max']:,.0f} "
        "tokens of prompt",
        ["kind", "proposer"],
        ["a pass", "ms", "taken", "tokens/s", "ratio", "least", "most", "same"],
        [
            "a pass: tokens of a pass of the target. ms: milliseconds of its proposal. taken: share of the proposed",
            "tokens that were accepted. ratio: tokens/s over those without proposals, median of the questions, with",
            f"the least and the most. same: answers that are those of {BASELINE}.",
        ],
    )
    for kind, rows in summary["kinds"].items():
        for number, (name, row) in enumerate(rows.items()):
            table.add_row(kind if number == 0 else "", name, *_cells(row))
    return table


def proposers_plot(result: ProposersResult, path: Path) -> None:
    """Write the ratios to no proposals as bars from the least to the most, a panel for each kind of question.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    kinds = result.summary()["kinds"]
    figure, axes = new_figure(1.5 + 3.2 * len(kinds), 1.6 + 0.34 * len(result.proposers), len(kinds))
    for panel, (kind, rows) in zip([axes] if len(kinds) == 1 else axes, kinds.items(), strict=True):
        bars = [(name, row["ratio"]) for name, row in rows.items() if row["ratio"]][::-1]
        middles = [ratio["median"] for _, ratio in bars]
        spans = [
            [ratio["median"] - ratio["min"] for _, ratio in bars],
            [ratio["max"] - ratio["median"] for _, ratio in bars],
        ]
        colours = [GREY if name == BASELINE else ACCENT for name, _ in bars]
        panel.barh(range(len(bars)), middles, xerr=spans, color=colours, height=0.62)
        panel.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
        panel.set_xlabel("tokens/s over no proposals", fontsize=9)
        panel.set_title(kind, fontsize=9)
    figure.suptitle(f"{result.target}, {result.machine['device']}", fontsize=9)
    save_figure(figure, path)


def _cells(row: dict[str, Any]) -> list[str]:
    speed, ratio = row["decode_tps"], row["ratio"]
    return [
        _figure(row["tokens_per_pass"], ".2f"),
        _figure(row["proposal_ms"], ".2f"),
        _figure(row["acceptance"], ".2f"),
        _figure(speed and speed["median"], ".1f"),
        _figure(ratio and ratio["median"], ".2f"),
        _figure(ratio and ratio["min"], ".2f"),
        _figure(ratio and ratio["max"], ".2f"),
        f"{row['same']}/{row['answers']}",
    ]


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
