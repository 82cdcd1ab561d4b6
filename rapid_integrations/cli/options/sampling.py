"""How tokens are sampled, and when an answer ends."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import typer

from rapid_integrations.cli.options.panels import SAMPLING
from rapid_integrations.config import ABSTENTION, SamplingParams, StructuredOutput


@dataclass(frozen=True)
class SamplingOptions:
    """Select how tokens are sampled and when an answer ends."""

    temperature: Annotated[
        float, typer.Option(help="Sampling temperature. 0 decodes greedily.", rich_help_panel=SAMPLING)
    ] = 0.0
    top_k: Annotated[
        int, typer.Option(help="Sample from the k likeliest tokens. 0 keeps all.", rich_help_panel=SAMPLING)
    ] = 0
    top_p: Annotated[
        float,
        typer.Option(
            help="Sample from the likeliest tokens that hold this much probability. 1 keeps all.",
            rich_help_panel=SAMPLING,
        ),
    ] = 1.0
    repetition_penalty: Annotated[
        float,
        typer.Option(help="Divide the logits of tokens that occurred before. 1 is off.", rich_help_panel=SAMPLING),
    ] = 1.0
    frequency_penalty: Annotated[
        float,
        typer.Option(
            help="Lower a token's logit for each time the answer holds it, from -2 to 2. 0 is off.",
            rich_help_panel=SAMPLING,
        ),
    ] = 0.0
    presence_penalty: Annotated[
        float,
        typer.Option(
            help="Lower a token's logit once if the answer holds it, from -2 to 2. 0 is off.",
            rich_help_panel=SAMPLING,
        ),
    ] = 0.0
    max_new_tokens: Annotated[
        int, typer.Option(help="Maximum length of an answer, in tokens.", rich_help_panel=SAMPLING)
    ] = 256
    min_new_tokens: Annotated[
        int,
        typer.Option(help="Tokens before which the model cannot end an answer.", rich_help_panel=SAMPLING),
    ] = 0
    stop: Annotated[
        list[str] | None,
        typer.Option(help="String that ends the answer. Repeat the option for more.", rich_help_panel=SAMPLING),
    ] = None
    seed: Annotated[
        int | None, typer.Option(help="Random seed. It makes sampled answers repeatable.", rich_help_panel=SAMPLING)
    ] = None

    abstain_below: Annotated[
        float | None,
        typer.Option(
            help="Answer --abstain-text if the probability that the documents answer the question is below this. "
            "Default: always answer.",
            rich_help_panel=SAMPLING,
        ),
    ] = None
    abstain_text: Annotated[str, typer.Option(help="Answer of --abstain-below.", rich_help_panel=SAMPLING)] = ABSTENTION

    def params(self, structured: StructuredOutput | None = None) -> SamplingParams:
        """Return the settings, checked."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return SamplingParams(**{**chosen, "stop": tuple(self.stop or ())}, structured=structured)
