"""Show peak memory by part as a table and as a plot."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from rapid_integrations.benchmarks.figures import COLOURS, figures_table, new_figure, save_figure
from rapid_integrations.benchmarks.memory import PARTS, SHARED_QUESTIONS, MemoryResult

_LABELS = {
    "weights_target": "weights, target",
    "weights_drafter": "weights, drafter",
    "kv_target": "KV cache, target",
    "kv_drafter": "KV cache, drafter",
    "embedder": "embedder",
    "idle": "idle process",
    "activations_prefill": "activations, prefill",
    "activations_decode": "activations, decoding",
    "peak": "peak",
    "kv_shared": f"shared: KV caches of {SHARED_QUESTIONS} questions, target",
}
_MIB = 2**20


def memory_table(result: MemoryResult) -> Table:
    """Return MiB by part, a column for each context length."""
    table = figures_table(
        "Peak memory in MiB, by tokens of prompt",
        ["part"],
        [f"{peak.prompt_tokens:,}" for peak in result.peaks],
        [
            "Weights, embedder and KV caches: sizes of their tensors. Idle process: in use before the question, less",
            "weights and embedder. Activations: what the peak has beyond all of these. Shared: several questions about",
            "one document at once; no part of the peak.",
            *_growth(result),
        ],
    )
    for part, label in _LABELS.items():
        table.add_row(label, *(f"{getattr(peak, part) / _MIB:,.1f}" for peak in result.peaks))
    return table


def memory_plot(result: MemoryResult, path: Path) -> None:
    """Write stacked bars, one for each context length.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, axes = new_figure(7.5, 4.0)
    bottoms = [0.0] * len(result.peaks)
    for part, colour in zip(PARTS, COLOURS, strict=True):
        heights = [max(0, getattr(peak, part)) / _MIB for peak in result.peaks]
        axes.bar(range(len(heights)), heights, bottom=bottoms, color=colour, width=0.6, label=_LABELS[part])
        bottoms = [below + height for below, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(range(len(result.peaks)), [f"{peak.prompt_tokens:,}" for peak in result.peaks])
    axes.set_xlabel("tokens of prompt", fontsize=9)
    axes.set_ylabel("MiB", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8, frameon=False)
    axes.set_title(f"Peak memory: {result.target}, {result.machine['device']}", fontsize=9)
    save_figure(figure, path)


def _growth(result: MemoryResult) -> list[str]:
    kv, activations = result.per_token("kv_target"), result.per_token("activations_prefill")
    if kv is None or activations is None or result.hidden_states_per_token is None:
        return []
    less = "less" if result.bounded else "more"
    return [
        f"Each token of context takes {kv:,.0f} bytes of KV cache and {activations:,.0f} of activations: {less} than a",
        f"hidden state in every layer ({result.hidden_states_per_token:,} bytes), the least that could be kept there.",
    ]
