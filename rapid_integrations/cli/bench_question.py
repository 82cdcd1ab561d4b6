"""The command `rapid bench question`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.bench_options import (
    HANDBOOK,
    HANDBOOK_QUESTIONS,
    Context,
    Document,
    KVCache,
    NewTokens,
    Peers,
    Plot,
    Questions,
    listed_names,
    require_plot,
    scratch_folder,
    show_results,
)
from rapid_integrations.cli.console import errors_taught, stderr
from rapid_integrations.cli.options import DOCUMENTS, AsJson, ModelOptions, SpeculationOptions, with_option_groups


@with_option_groups
def bench_question(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    context: Context = 7500,
    new_tokens: NewTokens = 32,
    max_pairs: Annotated[
        int, typer.Option(min=1, help="Maximum number of question pairs.", rich_help_panel=DOCUMENTS)
    ] = 5,
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the cache files of the restart. Default: the system's temporary folder, which may be in "
            "memory."
        ),
    ] = None,
    peers: Peers = "transformers,openvino,llama_cpp",
    openvino_kv_cache: KVCache = None,
    models: ModelOptions,
    transfer: SpeculationOptions,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure the wait for the first token, by part: cold start, first and second question, read ahead, restart."""
    from rapid_integrations.benchmarks.question import QuestionBench
    from rapid_integrations.benchmarks.question_report import question_plot, question_table
    from rapid_integrations.evaluation.questions import load_question_pairs

    with errors_taught(), scratch_folder(scratch) as folder:
        require_plot(plot)
        pairs = load_question_pairs(questions, document, max_pairs)
        with ProgressView(stderr) as progress:
            bench = QuestionBench(
                lambda: models.load(progress),
                [sys.executable, "-m", "rapid_integrations.cli.question_child"],
                {
                    "engine": models.chosen(),
                    "target": models.target,
                    "drafter": models.drafter,
                    "kv_cache": openvino_kv_cache,
                },
                folder,
                speculation=transfer.config(),
                context_tokens=context,
                new_tokens=new_tokens,
                on_progress=progress,
                peers=listed_names(peers),
            )
            result = bench.run(pairs)
        draw = None if plot is None else partial(question_plot, result, plot)
        show_results([question_table(result)], result.summary(), as_json, draw)
