"""The command `rapid bench together`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.bench_options import (
    HANDBOOK,
    HANDBOOK_QUESTIONS,
    Context,
    Document,
    NewTokens,
    Plot,
    Questions,
    listed_names,
    require_plot,
    show_results,
)
from rapid_integrations.cli.console import errors_taught, stderr
from rapid_integrations.cli.options import DOCUMENTS, AsJson, ModelOptions, SpeculationOptions, with_option_groups


@with_option_groups
def bench_together(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    context: Context = 7500,
    new_tokens: NewTokens = 64,
    full_length: Annotated[
        bool, typer.Option("--full-length", help="Let every answer have --new-tokens tokens, wherever the model ends.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Number of runs of each way to ask.")] = 1,
    max_questions: Annotated[
        int, typer.Option(min=2, help="Maximum number of questions, all about one document.", rich_help_panel=DOCUMENTS)
    ] = 8,
    methods: Annotated[
        str, typer.Option(help="Methods to measure, separated by commas: target, rapid.")
    ] = "target,rapid",
    ways: Annotated[
        str, typer.Option(help="Ways to ask at once, separated by commas: threads, tasks, batch.")
    ] = "threads,tasks,batch",
    models: ModelOptions,
    transfer: SpeculationOptions,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure questions about one document that are asked at once, beside the same questions one after another."""
    from rapid_integrations.benchmarks.together import TogetherBench
    from rapid_integrations.benchmarks.together_report import together_plot, together_table
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        require_plot(plot)
        cases = load_questions(questions, document, max_questions, 1)
        with ProgressView(stderr) as progress:
            bench = TogetherBench(
                models.load(progress),
                speculation=transfer.config(),
                context_tokens=context,
                new_tokens=new_tokens,
                full_length=full_length,
                repeats=repeats,
                on_progress=progress,
                methods=listed_names(methods),
                ways=listed_names(ways),
            )
            result = bench.run(cases)
        draw = None if plot is None else partial(together_plot, result, plot)
        show_results([together_table(result)], result.summary(), as_json, draw)
