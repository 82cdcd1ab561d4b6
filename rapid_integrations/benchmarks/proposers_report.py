"""Show what proposers gain as a table and as a plot."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from rapid_integrations.benchmarks.figures import COLOURS, GREY, figures_table, new_figure, save_figure
from rapid_integrations.benchmarks.proposers import TARGET, ProposersResult


def proposers_table(result: ProposersResult) -> Table:
    """Return a row for each kind of question and proposer."""
    summary = result.summary()
    table = figures_table(
        f"Proposers behind {summary['prompt_tokens']['median']:,.0f} tokens of prompt, law {result.law}",
        ["answers", "proposer"],
        ["per pass", "accepted", "proposal ms", "tokens/s", "ratio", "same"],
        [
            "per pass: tokens of a round. proposal ms: cost of proposing, a round. ratio: of tokens/s to the target",
            "alone, the median of the questions. same: answers that are those without proposals.",
            *(f"{name}: left out, {reason.rstrip('.')}." for name, reason in result.skipped.items()),
        ],
    )
    for kind, rows in summary["kinds"].items():
        for number, (name, row) in enumerate(rows.items()):
            table.add_row(
                kind if number == 0 else "",
                "target alone" if name == TARGET else name,
                "-" if row["tokens_per_pass"] is None else f"{row['tokens_per_pass']:.2f}",
                "-" if row["acceptance"] is None else f"{row['acceptance']:.0%}",
                "-" if row["proposal_ms"] is None else f"{row['proposal_ms']:.2f}",
                f"{row['decode_tps']['median']:.1f}",
                "-" if row["ratio"] is None else f"{row['ratio']:.2f}x",
                f"{row['same']}/{row['questions']}",
            )
    return table


def proposers_plot(result: ProposersResult, path: Path) -> None:
    """Write the ratios to the target alone as bars, a panel for each kind of question.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    summary = result.summary()
    names = [name for name in reversed(result.proposers) if name != TARGET]
    figure, axes = new_figure(3.5 + 2.5 * len(result.kinds), 1.4 + 0.34 * len(names), len(result.kinds))
    panels = [axes] if len(result.kinds) == 1 else axes
    for panel, colour, (kind, rows) in zip(panels, COLOURS, summary["kinds"].items(), strict=False):
        panel.barh(range(len(names)), [rows[name]["ratio"] or 0.0 for name in names], color=colour, height=0.62)
        panel.axvline(1.0, linestyle="--", color=GREY)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.set_xlabel("tokens/s over those of the target alone", fontsize=9)
        panel.set_title(f"{kind}, {rows[TARGET]['questions']} questions", fontsize=9)
    figure.suptitle(f"{result.target}, law {result.law}, {result.machine['device']}", fontsize=9)
    save_figure(figure, path)
