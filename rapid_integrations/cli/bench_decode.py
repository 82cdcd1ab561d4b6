"""The commands `rapid bench decode` and `rapid bench proposers`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.bench_options import (
    ALL_PEERS,
    HANDBOOK,
    HANDBOOK_QUESTIONS,
    PROPOSER_QUESTIONS,
    Context,
    Document,
    KVCache,
    MaxQuestions,
    NewTokens,
    Peers,
    Plot,
    Questions,
    listed_forms,
    listed_names,
    peer_source,
    require_plot,
    show_results,
)
from rapid_integrations.cli.console import errors_taught, stderr
from rapid_integrations.cli.options import (
    DOCUMENTS,
    SAMPLING,
    AsJson,
    ModelOptions,
    SpeculationOptions,
    with_option_groups,
)


@with_option_groups
def bench_decode(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    context: Context = 7500,
    new_tokens: NewTokens = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Number of runs of each question and method.")] = 1,
    max_questions: MaxQuestions = 20,
    max_documents: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of documents, of L-Eval's lines.", rich_help_panel=DOCUMENTS),
    ] = None,
    peers: Peers = ALL_PEERS,
    openvino_kv_cache: KVCache = None,
    also: Annotated[
        str,
        typer.Option(
            help="Also measure the target alone with these weights, separated by commas, or none: plain, int8, int4."
        ),
    ] = "none",
    models: ModelOptions,
    transfer: SpeculationOptions,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0, help="Temperature of this engine's methods. 0 decodes greedily.", rich_help_panel=SAMPLING
        ),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(help="top_p of this engine's methods. Other engines decode greedily.", rich_help_panel=SAMPLING),
    ] = 1.0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure decoding in tokens per second, for RAPID, its parts alone, and other engines."""
    from rapid_integrations.benchmarks.decode import DecodeBench
    from rapid_integrations.benchmarks.decode_report import decode_plot, decode_table
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        require_plot(plot)
        cases = load_questions(questions, document, max_questions, max_documents)
        forms = listed_forms(also)
        with ProgressView(stderr) as progress:
            engine = models.load(progress)
            others = {
                f"target_{name}": replace(
                    models, drafter=None, quantization=form, drafter_quantization=None, draft_lm=None
                ).load(progress)
                for name, form in forms.items()
            }
            bench = DecodeBench(
                engine,
                speculation=transfer.config(),
                context_tokens=context,
                new_tokens=new_tokens,
                repeats=repeats,
                on_progress=progress,
                source=peer_source(engine.target.device, models, openvino_kv_cache, context + new_tokens),
                peers=listed_names(peers),
                also=others,
                temperature=temperature,
                top_p=top_p,
            )
            result = bench.run(cases)
        draw = None if plot is None else partial(decode_plot, result, plot)
        show_results([decode_table(result)], result.summary(), as_json, draw)


@with_option_groups
def bench_proposers(
    *,
    document: Document = HANDBOOK,
    questions: Annotated[
        Path,
        typer.Option(
            help='JSON lines with a "question" each, and a "kind" if answers of several kinds are compared, or '
            "L-Eval's format with its own documents.",
            rich_help_panel=DOCUMENTS,
        ),
    ] = PROPOSER_QUESTIONS,
    context: Context = 4000,
    new_tokens: NewTokens = 96,
    repeats: Annotated[int, typer.Option(min=1, help="Number of runs of each question and proposer.")] = 1,
    max_questions: MaxQuestions = 20,
    proposers: Annotated[
        str, typer.Option(help="Proposers to measure, separated by commas, or all: those that the models allow.")
    ] = "all",
    models: ModelOptions,
    transfer: SpeculationOptions,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Temperature. 0 decodes greedily.", rich_help_panel=SAMPLING)
    ] = 0.0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure all proposers on the same questions, apart for each kind of answer."""
    from rapid_integrations.benchmarks.proposers import ProposersBench
    from rapid_integrations.benchmarks.proposers_report import proposers_plot, proposers_table
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        require_plot(plot)
        cases = load_questions(questions, document, max_questions)
        with ProgressView(stderr) as progress:
            bench = ProposersBench(
                models.load(progress),
                speculation=transfer.config(),
                context_tokens=context,
                new_tokens=new_tokens,
                repeats=repeats,
                on_progress=progress,
                proposers=None if proposers == "all" else listed_names(proposers),
                temperature=temperature,
            )
            result = bench.run(cases)
        draw = None if plot is None else partial(proposers_plot, result, plot)
        show_results([proposers_table(result)], result.summary(), as_json, draw)
