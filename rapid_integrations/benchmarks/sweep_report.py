"""Show a sweep as a table and as a plot."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from rapid_integrations.benchmarks.figures import COLOURS, METHOD_LABELS, figures_table, new_figure, save_figure
from rapid_integrations.benchmarks.sweep import Point, SweepResult


def sweep_table(result: SweepResult) -> Table:
    """Return a row for each context length and method, then for each retrieval length."""
    questions = len(result.last.prompt_tokens)
    table = figures_table(
        f"Context and retrieval length, {questions} question{'s' if questions > 1 else ''}",
        ["method"],
        ["context", "drafter reads", "tokens/s", "min-max", "first token, s", "accepted"],
        [
            f"{result.last.target}, {result.last.machine['device']}; medians over the questions.",
            "The last rows: RAPID with other retrieval lengths." if result.retrievals else "",
            *(
                f"{METHOD_LABELS[name]}: left out, {reason.rstrip('.')}."
                for name, reason in result.last.skipped.items()
            ),
        ],
    )
    for points in (result.contexts, result.retrievals):
        for point in points:
            table.add_row(*_cells(point), end_section=point is points[-1])
    return table


def sweep_plot(result: SweepResult, path: Path) -> None:
    """Write tokens/s over the context length, a line for each method, and beside it over the retrieval length.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    panels = 2 if result.retrievals else 1
    figure, axes = new_figure(4.4 * panels + 1.6, 3.8, panels)
    left = axes[0] if panels == 2 else axes
    methods = list(dict.fromkeys(point.method for point in result.contexts))
    for method, colour in zip(reversed(methods), COLOURS * 2, strict=False):
        points = [
            (p.context, p.decode_tps["median"])
            for p in result.contexts
            if p.method == method and p.decode_tps is not None
        ]
        if points:
            left.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=METHOD_LABELS[method])
    left.set_xlabel("context, tokens", fontsize=9)
    if panels == 2:
        read = [(p.drafter_tokens or 0, p.decode_tps["median"]) for p in result.retrievals if p.decode_tps is not None]
        if read:
            axes[1].plot(*zip(*read, strict=True), "o-", color=COLOURS[0], markersize=4)
        axes[1].set_xlabel(f"tokens that the drafter reads, of {result.retrievals[-1].context:,}", fontsize=9)
    for panel in axes if panels == 2 else [axes]:
        panel.set_ylabel("decode tokens/s", fontsize=9)
        panel.set_ylim(bottom=0)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    figure.suptitle(f"{result.last.target}, {result.last.machine['device']}", fontsize=9)
    save_figure(figure, path)


def _cells(point: Point) -> list[str]:
    speed, first, acceptance = point.decode_tps, point.first_token_s, point.acceptance
    return [
        METHOD_LABELS[point.method],
        f"{point.context:,}",
        "-" if point.drafter_tokens is None else f"{point.drafter_tokens:,.0f}",
        "-" if speed is None else f"{speed['median']:.1f}",
        "-" if speed is None else f"{speed['min']:.1f}-{speed['max']:.1f}",
        "-" if first is None else f"{first:.2f}",
        "-" if acceptance is None else f"{acceptance:.0%}",
    ]
