"""The command `rapid bench start`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.bench_options import HANDBOOK, Document, scratch_folder, show_results
from rapid_integrations.cli.console import errors_taught, stderr
from rapid_integrations.cli.options import AsJson, ModelOptions, with_option_groups
from rapid_integrations.errors import ConfigurationError

_QUESTIONS = ("What is this document about?", "Which dates does it name?")


@with_option_groups
def bench_start(
    *,
    document: Document = HANDBOOK,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", help="Give two: one for the new document, one for the cached."),
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Length of an answer, in tokens.")] = 8,
    runs: Annotated[int, typer.Option(min=1, help="How often the cached document is asked about.")] = 3,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder for the cached documents. Default: the system's temporary folder.")
    ] = None,
    models: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Measure `rapid ask` from the start of its process to its end, by part: new document, cached document."""
    from rapid_integrations.benchmarks.start import measure_starts, start_table

    with errors_taught(), scratch_folder(scratch) as folder, ProgressView(stderr) as progress:
        questions = list(question or _QUESTIONS)
        if len(questions) != 2:
            raise ConfigurationError(f"{len(questions)} questions were given: give two, or none")
        asked = {
            "document": str(document),
            "new_tokens": new_tokens,
            "engine": models.chosen(),
        }
        child = [sys.executable, "-m", "rapid_integrations.cli.start_child"]
        result = measure_starts(child, asked, questions, folder, runs, progress)
    show_results([start_table(result)], result.summary(), as_json)
