"""A benchmark's figures as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from rich import box
from rich.table import Table

from rapid_integrations.errors import MissingExtraError
from rapid_integrations.evaluation.decode_bench import METHODS, DecodeResult

_LABELS = {
    "transformers": "transformers",
    "target": "target alone",
    "drafter": "drafter alone",
    "sd": "naive speculative",
    "rapid": "RAPID",
}


def decode_table(result: DecodeResult) -> Table:
    """Return tokens/s of each method with its spread, and how it compares with transformers."""
    summary = result.summary()
    tokens = summary["prompt_tokens"]["median"]
    table = Table(
        title=f"Decoding behind {tokens:,.0f} tokens of prompt, {summary['questions']} questions",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    for name in ("tokens/s", "min-max", "ratio", "accepted", "per pass", "repeats"):
        table.add_column(name, justify="right", no_wrap=True)
    for method in METHODS:
        row = summary["methods"][method]
        ratio = median(result.ratios(method, "transformers"))
        table.add_row(
            _LABELS[method],
            f"{row['decode_tps']:.1f}",
            f"{row['min']:.1f}-{row['max']:.1f}",
            f"{ratio:.2f}x",
            f"{row['acceptance']:.0%}" if "acceptance" in row else "-",
            f"{row['tokens_per_round']:.2f}" if "tokens_per_round" in row else "-",
            f"{row['repeated_4grams']:.0%}",
        )
    dtypes = summary["dtypes"]
    notes = [
        f"transformers in {dtypes['transformers']}, its faster type here; the others in {dtypes['engine']}.",
        "ratio: median over questions, to transformers; per pass: output tokens per pass of the target;",
        "repeats: share of 4-grams that occurred before (looping text flatters speculation).",
    ]
    if (allowed := summary["methods"]["rapid"].get("allowed_tps")) is not None:
        notes.append(f"RAPID's own acceptance and step costs allow {allowed:.1f} tokens/s at the best fixed length.")
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table


def decode_plot(result: DecodeResult, path: Path) -> None:
    """Write a bar chart of the medians, every run as a dot.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(feature="A plot", extra="plot") from error
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for row, method in enumerate(reversed(METHODS)):
        speeds = sorted(result.speeds(method))
        middle = result.summary()["methods"][method]["decode_tps"]
        axes.barh(row, middle, color="#c25b2a" if method == "rapid" else "#9aa5b1", height=0.62)
        axes.plot(speeds, [row] * len(speeds), "o", color="#1f2933", markersize=3.5)
        axes.annotate(f"{middle:.1f}", (max(speeds), row), xytext=(6, -3), textcoords="offset points", fontsize=9)
    axes.set_yticks(range(len(METHODS)), [_LABELS[method] for method in reversed(METHODS)])
    axes.set_xlabel("decode tokens/s (median; dots are single runs)")
    axes.set_xlim(0, max(max(result.speeds(method)) for method in METHODS) * 1.15)
    axes.spines[["top", "right"]].set_visible(False)
    tokens = result.summary()["prompt_tokens"]["median"]
    axes.set_title(f"{result.target}, {tokens:,.0f} prompt tokens, {result.machine['device']}", fontsize=9)
    figure.savefig(path, dpi=150)
