"""The command `rapid bench steps`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.bench_options import Plot, listed_lengths, require_plot, show_results
from rapid_integrations.cli.console import errors_taught, stderr
from rapid_integrations.cli.options import MODELS, AsJson, Device, DrafterQuantized, Dtype, Quantized


def bench_steps(
    shape: Annotated[
        str,
        typer.Option(
            help="Shape of the target: llama-3.1-8b, llama-3.1-70b, qwen2.5-0.5b, qwen2.5-1.5b, or a config.json.",
            rich_help_panel=MODELS,
        ),
    ],
    drafter_shape: Annotated[
        str | None, typer.Option(help="Shape of the drafter. Default: the target's.", rich_help_panel=MODELS)
    ] = None,
    contexts: Annotated[
        str, typer.Option(help="Numbers of tokens in the target's cache, separated by commas.")
    ] = "8192,32768",
    retrieval: Annotated[int, typer.Option(min=1, help="Number of tokens in the drafter's cache.")] = 1024,
    draft_lengths: Annotated[str, typer.Option(help="Draft lengths to measure, separated by commas.")] = "2,4,8,16",
    layers: Annotated[
        int | None, typer.Option(min=2, help="Build only this many layers and extrapolate.", rich_help_panel=MODELS)
    ] = None,
    dtype: Dtype = "bfloat16",
    device: Device = "auto",
    quantization: Quantized = None,
    drafter_quantization: DrafterQuantized = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure step costs of a model shape with random weights, and model tokens per second from them."""
    from rapid_integrations.benchmarks.steps import measure_steps
    from rapid_integrations.benchmarks.steps_report import modelled_table, steps_plot, steps_table
    from rapid_integrations.models.placement import device_of, dtype_of

    with errors_taught():
        require_plot(plot)
        with ProgressView(stderr) as progress:
            result = measure_steps(
                shape,
                drafter_shape=drafter_shape,
                contexts=listed_lengths(contexts, "--contexts"),
                retrieval=retrieval,
                draft_lengths=listed_lengths(draft_lengths, "--draft-lengths"),
                dtype=dtype_of("bfloat16" if dtype == "auto" else dtype, None, device_of(device)),
                device=device_of(device),
                layers=layers,
                quantization=quantization,
                drafter_quantization=drafter_quantization,
                on_progress=progress,
            )
        draw = None if plot is None else partial(steps_plot, result, plot)
        show_results([steps_table(result), modelled_table(result)], result.summary(), as_json, draw)
