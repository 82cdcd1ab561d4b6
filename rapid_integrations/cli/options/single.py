"""Options that commands take one by one."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rapid_integrations.cli.options.panels import MODELS, OUTPUT

AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON line on standard output and nothing else.", rich_help_panel=OUTPUT),
]
Dtype = Annotated[
    str,
    typer.Option(help="Number format of the weights: auto, float32, bfloat16 or float16.", rich_help_panel=MODELS),
]
Device = Annotated[
    str, typer.Option(help="Device that runs the models: auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=MODELS)
]
Quantized = Annotated[
    Literal["int8", "int4"] | None,
    typer.Option(
        help="Quantise the target's weights. This takes less memory, is faster on CPU and lowers quality slightly.",
        rich_help_panel=MODELS,
    ),
]
DrafterQuantized = Annotated[
    Literal["int8", "int4"] | None,
    typer.Option(
        help="Quantise the drafter's weights. Without --drafter, a quantised copy of the target drafts. "
        "Default: as the target.",
        rich_help_panel=MODELS,
    ),
]
