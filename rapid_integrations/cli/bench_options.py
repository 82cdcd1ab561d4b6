"""Options and parts that several commands of `rapid bench` share."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from rapid_integrations.benchmarks.figures import print_table
from rapid_integrations.cli.console import require_writable, say, stdout
from rapid_integrations.cli.interruption import INTERRUPTED, ends_in_order
from rapid_integrations.cli.options import DOCUMENTS, OUTPUT, ModelOptions
from rapid_integrations.config import Quantization
from rapid_integrations.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from rapid_integrations.benchmarks.peers import PeerSource

Document = Annotated[Path, typer.Option(help="Text that the questions are about.", rich_help_panel=DOCUMENTS)]
Questions = Annotated[
    Path,
    typer.Option(
        help='JSON lines with a "question" each, or L-Eval\'s format with its own documents.', rich_help_panel=DOCUMENTS
    ),
]
Context = Annotated[int, typer.Option(min=256, help="Maximum length of the target's prompt, in tokens.")]
Contexts = Annotated[str, typer.Option(help="Maximum lengths of the target's prompt, in tokens, separated by commas.")]
NewTokens = Annotated[int, typer.Option(min=8, help="Maximum length of an answer, in tokens.")]
MaxQuestions = Annotated[int, typer.Option(min=1, help="Maximum number of questions.", rich_help_panel=DOCUMENTS)]
Peers = Annotated[
    str,
    typer.Option(
        help="Other engines to measure, separated by commas, or none: transformers, transformers_assisted, "
        "transformers_lookup, openvino, llama_cpp."
    ),
]
KVCache = Annotated[
    str | None,
    typer.Option(
        "--openvino-kv-cache", help="Number format of OpenVINO's KV cache: u8, bf16, f16 or f32. Default: its choice."
    ),
]
Plot = Annotated[Path | None, typer.Option(help="Write a plot to this PNG file.", rich_help_panel=OUTPUT)]

HANDBOOK, HANDBOOK_QUESTIONS = Path("examples/handbook.md"), Path("examples/handbook_questions.jsonl")
PROPOSER_QUESTIONS = Path("examples/proposer_questions.jsonl")
PICTURES = ("", ".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp", ".eps", ".ps", ".tif", ".tiff")  # matplotlib's
ALL_PEERS = "transformers,transformers_assisted,transformers_lookup,openvino,llama_cpp"


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Create a temporary folder, which is gone afterwards, also if the process is told to terminate (SIGTERM)."""
    try:
        made = tempfile.TemporaryDirectory(prefix="rapid-bench-", dir=parent)
    except OSError as error:
        raise ConfigurationError(f"nothing can be written to {parent}: {error.strerror or error}") from error
    with ends_in_order(), made as folder:
        yield Path(folder)


def require_plot(path: Path | None) -> None:
    """Refuse a plot that cannot be drawn before anything is measured, which may take hours."""
    if path is None:
        return
    if find_spec("matplotlib") is None:
        raise MissingExtraError(feature="A plot", extra="plot")
    require_writable(path)
    if path.suffix.lower() not in PICTURES:
        raise ConfigurationError(f"--plot={path}: {path.suffix} is no format of a plot; use {', '.join(PICTURES[1:])}")


def show_results(
    tables: Sequence[Table], summary: dict[str, Any], as_json: bool, draw: Callable[[], None] | None = None
) -> None:
    """Draw the plot, and print the tables, unless only JSON is asked for, and the summary as one JSON line.

    What was measured is printed even if the plot fails, and if Ctrl-C ended the benchmark.

    Raises:
        typer.Exit: it did.
    """
    try:
        if draw is not None:
            draw()
    finally:
        for table in () if as_json else tables:
            print_table(stdout, table)
        sys.stdout.write(json.dumps(summary) + "\n")
    if summary.get("interrupted"):
        say("interrupted: these are the figures of what was whole")
        raise typer.Exit(INTERRUPTED)


def listed_names(value: str) -> list[str]:
    """Return the names that an option lists; "none" lists nothing."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    return [] if names == ["none"] else names


def listed_forms(value: str) -> dict[str, Quantization | None]:
    """Return the quantisations that --also lists, by name."""
    known: dict[str, Quantization | None] = {"plain": None, "int8": "int8", "int4": "int4"}
    if unknown := [name for name in listed_names(value) if name not in known]:
        raise ConfigurationError(f"--also={value!r}: unknown {', '.join(unknown)}; use {', '.join(known)}, or none")
    return {name: known[name] for name in listed_names(value)}


def listed_lengths(value: str, option: str) -> list[int]:
    """Return the numbers that an option lists."""
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigurationError(f"{option}={value!r}: give one or more numbers over 0, separated by commas")
    return [int(part) for part in parts]


def peer_source(device: Any, models: ModelOptions, kv_cache: str | None, context_tokens: int) -> PeerSource:
    """Return what peers are made from, without caches of prefixes: every prompt is read."""
    import torch

    from rapid_integrations.benchmarks.peers import PeerSource
    from rapid_integrations.benchmarks.transformers_peers import loaded_as_it_comes

    return PeerSource(
        models.target,
        None if models.drafter == models.target else models.drafter,
        device,
        loaded_as_it_comes(device),
        warm_up_ids=(),
        threads=torch.get_num_threads(),
        context_tokens=context_tokens,
        kv_cache=kv_cache,
    )
