"""The models, and how they are stored and cached."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.options.panels import DOCUMENTS, MODELS, RETRIEVAL
from rapid_integrations.cli.options.single import Device, DrafterQuantized, Dtype, Quantized
from rapid_integrations.cli.options.template_arguments import TemplateArgument, template_arguments
from rapid_integrations.config import DEFAULT_EMBEDDER, DEFAULT_TARGET

if TYPE_CHECKING:
    from rapid_integrations.engine.engine import RapidEngine


@dataclass(frozen=True)
class ModelOptions:
    """Select the models and how their weights are stored."""

    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            help="Model that reads the whole document: a packaged name, GGUF file, folder or hub name.",
            rich_help_panel=MODELS,
        ),
    ] = DEFAULT_TARGET
    drafter: Annotated[
        str | None,
        typer.Option(
            "--drafter",
            "-d",
            help="Model that reads the retrieved chunks. It needs the target's tokenizer. Default: the target.",
            rich_help_panel=MODELS,
        ),
    ] = None
    embedder: Annotated[
        str,
        typer.Option(
            "--embedder",
            help="Model that embeds the chunks for retrieval: a packaged name, folder or hub name.",
            rich_help_panel=RETRIEVAL,
        ),
    ] = DEFAULT_EMBEDDER
    dtype: Dtype = "auto"
    device: Device = "auto"
    quantization: Quantized = None
    drafter_quantization: DrafterQuantized = None
    draft_lm: Annotated[
        str | None,
        typer.Option(
            "--draft-lm",
            help="Small model that only proposes tokens, for --proposer draft_lm, hybrid and tree_hybrid.",
            rich_help_panel=MODELS,
        ),
    ] = None
    more_drafters: Annotated[
        list[str] | None,
        typer.Option(
            "--more-drafters",
            help="A further drafter; give it once for each. The drafters' distributions are averaged.",
            rich_help_panel=MODELS,
        ),
    ] = None
    draft_head: Annotated[
        str | None,
        typer.Option(
            "--draft-head",
            help="Trained head of the target (EAGLE, Medusa, Hydra, or the target's own further layers), for "
            "--proposer draft_head, draft_head_tree, hybrid and tree_hybrid: a folder or hub name.",
            rich_help_panel=MODELS,
        ),
    ] = None

    kv_dtype: Annotated[
        Literal["int8"] | None,
        typer.Option(
            help="Store keys and values in eight bits: half of their memory and files, and slightly other answers.",
            rich_help_panel=MODELS,
        ),
    ] = None

    sparse_prefill: Annotated[
        float | None,
        typer.Option(
            help="Read prompts with sparse attention, which is faster for long documents and changes answers: the "
            "share of the estimated attention that is read, such as 0.9.",
            rich_help_panel=MODELS,
        ),
    ] = None

    def load(self, progress: ProgressView, **more: Any) -> RapidEngine:
        """Load the models and show the progress.

        Args:
            progress: shows it.
            more: further arguments of `RapidEngine.from_pretrained`; they override the options.
        """
        from rapid_integrations.engine.engine import RapidEngine

        progress("load models", 0, 1)
        engine = RapidEngine.from_pretrained(on_progress=progress, **{**self.chosen(), **more})
        progress("load models", 1, 1)
        return engine

    def chosen(self) -> dict[str, Any]:
        """Return the arguments of `RapidEngine.from_pretrained`. Those of `ModelOptions` can be written as JSON."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**chosen, "more_drafters": tuple(self.more_drafters or ())}


@dataclass(frozen=True)
class ServingOptions(ModelOptions):
    """Select the models that answer questions, and the folder of their cache."""

    trust_remote_code: Annotated[
        bool, typer.Option(help="Run the Python code that comes with a model.", rich_help_panel=MODELS)
    ] = False
    verify: Annotated[
        Literal["isolated"] | None,
        typer.Option(
            help="Check an untrusted model folder in a separate process before it is loaded.", rich_help_panel=MODELS
        ),
    ] = None
    prefix_cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Cache prefilled documents in this folder. The next question about them starts sooner.",
            rich_help_panel=DOCUMENTS,
        ),
    ] = None
    template_date: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Date that the chat template writes. Fix it so that cached documents stay valid on other days.",
            rich_help_panel=DOCUMENTS,
        ),
    ] = None
    template_argument: TemplateArgument = None

    def chosen(self) -> dict[str, Any]:
        """See `ModelOptions.chosen`."""
        chosen = super().chosen()
        arguments = template_arguments(chosen.pop("template_argument"))
        return {**chosen, "chat_template_kwargs": arguments}
