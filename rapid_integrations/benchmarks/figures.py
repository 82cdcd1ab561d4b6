"""The style of all benchmarks' tables and plots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.segment import Segments
from rich.table import Table

from rapid_integrations.errors import ConfigurationError, MissingExtraError

ACCENT, GREY, INK = "#c25b2a", "#9aa5b1", "#1f2933"
COLOURS = (ACCENT, "#2b6cb0", "#2f855a", "#805ad5", GREY, "#b7791f", INK)

_WIDEST = 10_000  # columns of a console

METHOD_LABELS = {
    "transformers": "transformers",
    "transformers_assisted": "transformers + drafter",
    "transformers_lookup": "transformers + lookup",
    "openvino": "OpenVINO GenAI",
    "llama_cpp": "llama.cpp",
    "target": "target alone",
    "target_plain": "target alone, not quantised",
    "target_int8": "target alone, int8",
    "target_int4": "target alone, int4",
    "target_lookup": "target + lookup",
    "drafter": "drafter alone",
    "sd_full": "naive speculative",
    "rapid": "RAPID",
}


def figures_table(title: str, names: Sequence[str], figures: Sequence[str], notes: Sequence[str]) -> Table:
    """Return an empty table. `names` are columns of text, `figures` columns of numbers.

    `notes` are paragraphs under the table. If a note does not end a sentence, the next one continues it.
    """
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, caption_justify="left"
    )
    for name in names:
        table.add_column(name)
    for figure in figures:
        table.add_column(figure, justify="right")
    table.caption = re.sub(r"(?<!\.)\n", " ", "\n".join(note for note in notes if note))
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table and its notes. The notes are as wide as the console, not as the table.

    A table is as wide as its figures, which rich would cut to fit the console: a narrower terminal breaks its lines.
    """
    notes, table.caption = table.caption, None
    needed = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    options = console.options.update(width=max(needed, console.width))
    console.print(Segments(console.render(table, options)), crop=False, end="")
    if notes:
        console.print(notes, markup=False, highlight=False)
    console.print()
    table.caption = notes


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return a matplotlib figure and its axes (one, or an array of them).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(feature="A plot", extra="plot") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns)
    for each in [axes] if columns == 1 else axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Write a picture.

    Raises:
        ConfigurationError: the file or the format cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the plot cannot be written to {path}: {error}") from error
