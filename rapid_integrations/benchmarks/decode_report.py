"""Show decode speed as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from rapid_integrations.benchmarks.decode import DecodeResult
from rapid_integrations.benchmarks.figures import (
    ACCENT,
    GREY,
    INK,
    METHOD_LABELS,
    figures_table,
    new_figure,
    save_figure,
)

_COLUMNS = ("tokens/s", "min-max", "ratio", "accepted", "per pass", "outside")


def decode_table(result: DecodeResult) -> Table:
    """Return tokens/s of each method with its spread, and the ratio to the first peer (or the target)."""
    summary = result.summary()
    asked = f"{summary['questions']} question{'s' if summary['questions'] > 1 else ''}"
    base = result.peers[0] if result.peers else "target"
    table = figures_table(
        f"Decoding behind {summary['prompt_tokens']['median']:,.0f} tokens of prompt, {asked}",
        ["method"],
        _COLUMNS,
        [*_explained(base, summary), *_against_plain(result), *_bound(summary), *_settings(summary), *_skipped(result)],
    )
    for method in result.methods:
        row, ratios = summary["methods"][method], result.ratios(method, base)
        speed = row["decode_tps"]
        table.add_row(
            METHOD_LABELS[method],
            f"{speed['median']:.1f}" if speed else "-",
            f"{speed['min']:.1f}-{speed['max']:.1f}" if speed else "-",
            f"{median(ratios):.2f}x" if ratios else "-",
            f"{row['acceptance']:.0%}" if "acceptance" in row else "-",
            f"{row['tokens_per_round']:.2f}" if "tokens_per_round" in row else "-",
            f"{row['outside_forward']:.0%}" if "outside_forward" in row else "-",
        )
    return table


def decode_plot(result: DecodeResult, path: Path) -> None:
    """Write a bar chart of the medians, every run as a dot, and RAPID's bound as a line.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    summary = result.summary()
    methods = [method for method in reversed(result.methods) if result.speeds(method)]
    figure, axes = new_figure(7.5, 1.2 + 0.42 * len(methods))
    for row, method in enumerate(methods):
        speeds = result.speeds(method)
        middle = summary["methods"][method]["decode_tps"]["median"]
        axes.barh(row, middle, color=ACCENT if method == "rapid" else GREY, height=0.62)
        axes.plot(speeds, [row] * len(speeds), "o", color=INK, markersize=3)
        axes.annotate(f"{middle:.1f}", (max(speeds), row), xytext=(6, -3), textcoords="offset points", fontsize=9)
    if summary["bound"] is not None and "rapid" in methods:
        tps = summary["bound"]["tps"]
        axes.plot([tps, tps], [methods.index("rapid") - 0.42, methods.index("rapid") + 0.42], "--", color=INK, lw=1.2)
    axes.set_yticks(range(len(methods)), [METHOD_LABELS[method] for method in methods])
    axes.set_xlabel("decode tokens/s (median; dots: runs; dashed: what RAPID's own costs allow)", fontsize=9)
    axes.set_xlim(0, max(max(result.speeds(method)) for method in methods) * 1.15)
    tokens = summary["prompt_tokens"]["median"]
    axes.set_title(f"{result.target}, {tokens:,.0f} prompt tokens, {result.machine['device']}", fontsize=9)
    save_figure(figure, path)


def _explained(base: str, summary: dict[str, Any]) -> list[str]:
    repeats = [f"{METHOD_LABELS[name]} {row['repeated_4grams']:.0%}" for name, row in summary["methods"].items()]
    return [
        f"ratio: to {METHOD_LABELS[base]}, median over questions; per pass: output tokens per pass of the target;",
        "outside: share of decoding outside the models' forward passes.",
        "4-grams that occurred before (looping text flatters speculation): " + ", ".join(repeats) + ".",
    ]


def _bound(summary: dict[str, Any]) -> list[str]:
    if (bound := summary["bound"]) is None:
        return ["RAPID drafted nothing: both models read the same text, so that a draft would save nothing."]
    return [
        f"RAPID's own acceptance ({bound['per_token_acceptance']:.0%} per token) and step costs allow "
        f"{bound['tps']:.1f} tokens/s, {_at(bound['draft_length'])}; {bound['reached']:.0%} of that was reached.",
        f"What limits it most: {bound['limit']} (without: {bound['tps_without_limit']:.1f} tokens/s).",
    ]


def _against_plain(result: DecodeResult) -> list[str]:
    plain = result.fastest_plain()
    if plain is None or not (ratios := result.ratios("rapid", plain)):
        return []
    faster = sum(ratio > 1 for ratio in ratios)
    return [
        f"The fastest without drafts is {METHOD_LABELS[plain]}; RAPID has {median(ratios):.2f} times its speed "
        f"({min(ratios):.2f} to {max(ratios):.2f}), and is the faster one on {faster} of {len(ratios)} questions."
    ]


def _at(draft_length: int) -> str:
    return f"at draft length {draft_length}" if draft_length else "without drafting: a draft costs more than it saves"


def _settings(summary: dict[str, Any]) -> list[str]:
    return [
        f"{METHOD_LABELS.get(name, 'this engine')}: "
        + ", ".join(f"{key} {value}" for key, value in settings.items())
        + "."
        for name, settings in summary["settings"].items()
    ]


def _skipped(result: DecodeResult) -> list[str]:
    return [f"{METHOD_LABELS[name]}: left out, {reason.rstrip('.')}." for name, reason in result.skipped.items()]
