"""The command `rapid bench sweep`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.bench_options import (
    HANDBOOK,
    HANDBOOK_QUESTIONS,
    Contexts,
    Document,
    KVCache,
    MaxQuestions,
    NewTokens,
    Peers,
    Plot,
    Questions,
    listed_lengths,
    listed_names,
    peer_source,
    require_plot,
    show_results,
)
from rapid_integrations.cli.console import errors_taught, stderr
from rapid_integrations.cli.options import AsJson, ModelOptions, SpeculationOptions, with_option_groups


@with_option_groups
def bench_sweep(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    contexts: Contexts = "1000,2000,4000,7500",
    retrievals: Annotated[
        str,
        typer.Option(
            help="Retrieved lengths to measure at the longest context, in tokens, separated by commas, or none."
        ),
    ] = "512,1024,2048",
    methods: Annotated[
        str,
        typer.Option(help="Methods to measure, separated by commas: target, target_lookup, drafter, sd_full, rapid."),
    ] = "target,target_lookup,rapid",
    new_tokens: NewTokens = 64,
    max_questions: MaxQuestions = 3,
    peers: Peers = "none",
    openvino_kv_cache: KVCache = None,
    models: ModelOptions,
    transfer: SpeculationOptions,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure decode speed and time to first token by context length, method and retrieved length."""
    from rapid_integrations.benchmarks.sweep import sweep
    from rapid_integrations.benchmarks.sweep_report import sweep_plot, sweep_table
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        require_plot(plot)
        lengths = listed_lengths(contexts, "--contexts")
        budgets = listed_lengths(retrievals, "--retrievals") if listed_names(retrievals) else []
        cases = load_questions(questions, document, max_questions)
        with ProgressView(stderr) as progress:
            engine = models.load(progress, prefix_cache_bytes=0)
            result = sweep(
                engine,
                cases,
                contexts=lengths,
                retrievals=budgets,
                methods=listed_names(methods),
                speculation=transfer.config(),
                new_tokens=new_tokens,
                on_progress=progress,
                source=peer_source(engine.target.device, models, openvino_kv_cache, max(lengths) + new_tokens),
                peers=listed_names(peers),
            )
        draw = None if plot is None else partial(sweep_plot, result, plot)
        show_results([sweep_table(result)], result.summary(), as_json, draw)
