"""Show the steps of a shape and the modelled speed as tables and as a plot."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from rapid_integrations.benchmarks.figures import COLOURS, figures_table, new_figure, save_figure
from rapid_integrations.benchmarks.steps import ACCEPTANCE, DRAFTING, StepsResult

_LABELS = {
    "target": "target alone",
    "target_lookup": "target + lookup",
    "rapid": "RAPID + drafter",
    "rapid_lookup": "RAPID + lookup",
}


def steps_table(result: StepsResult) -> Table:
    """Return the time of each forward pass, and the machine's copy bandwidth."""
    notes = [
        f"Random weights in {result.dtype}, random KV caches; {result.machine['device']}.",
        f"Copying memory runs at {result.copy_bandwidth / 1e9:,.1f} GB/s here; bytes of a pass: weights and KV cache.",
    ]
    if result.layers_built < result.layers:
        notes.append(f"Extrapolated to {result.layers} layers from {result.layers_built} and half of them.")
    drafter = "" if result.drafter_shape == result.shape else f", drafter {result.drafter_shape}"
    table = figures_table(
        f"Passes of {result.shape}{drafter}", ["pass"], ["context", "new tokens", "ms", "GB/s", "of copying"], notes
    )
    for step in result.steps:
        table.add_row(
            step.kind,
            f"{step.context:,}",
            str(step.new),
            f"{1e3 * step.seconds:,.2f}",
            f"{step.bandwidth / 1e9:,.1f}",
            f"{step.bandwidth / result.copy_bandwidth:.0%}",
        )
    return table


def modelled_table(result: StepsResult) -> Table:
    """Return tokens/s at the assumed acceptances."""
    table = figures_table(
        f"Modelled tokens/s of {result.shape}: no text was decoded",
        ["method"],
        ["context", "accepted per token", "draft length", "tokens/s", "to target"],
        [
            f"From the passes above, the drafter having read {result.retrieval:,} tokens; acceptance is assumed;",
            "sampling, text and bookkeeping are left out. Draft length: the best of those measured.",
        ],
    )
    for row in result.modelled():
        table.add_row(
            _LABELS[row.method],
            f"{row.context:,}",
            "-" if row.acceptance is None else f"{row.acceptance:.0%}",
            str(row.draft_length or "-"),
            f"{row.tps:,.1f}",
            f"{row.tps * result.seconds('verify', row.context, 1):.2f}x",
        )
    return table


def steps_plot(result: StepsResult, path: Path) -> None:
    """Write modelled tokens/s over the context length.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = new_figure(8.0, 3.8)
    rows = result.modelled()
    lines = [("target", None), *((method, a) for method in DRAFTING for a in ACCEPTANCE)]
    for (method, a), colour in zip(lines, COLOURS[::-1], strict=False):
        points = [(row.context, row.tps) for row in rows if (row.method, row.acceptance) == (method, a)]
        label = _LABELS[method] + ("" if a is None else f", {a:.0%} accepted")
        axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=label)
    axes.set_xlabel("context, tokens", fontsize=9)
    axes.set_ylabel("modelled tokens/s", fontsize=9)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    axes.set_title(f"Modelled: {result.shape}, {result.dtype}, {result.machine['device']}", fontsize=9)
    save_figure(figure, path)
