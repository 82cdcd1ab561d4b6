"""Option groups that several commands share. A command takes a group; the command line shows its fields."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import say
from rapid_integrations.config import (
    ABSTENTION,
    DEFAULT_EMBEDDER,
    DEFAULT_TARGET,
    SamplingParams,
    SpeculationConfig,
    StructuredOutput,
    TailRule,
)
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.prompt import TemplateArguments

_NAMED_SKIPPED = 10
_NAMED_SOURCES = 3  # files that one remark is about
_SHOWN_REMARKS = 30

if TYPE_CHECKING:
    from rapid_integrations.documents import Documents
    from rapid_integrations.engine.engine import RapidEngine

DOCUMENTS_HELP = "PDF, DOCX, HTML, Markdown or text files, or folders of them."

# The panels of `--help`.
MODELS, RETRIEVAL, DOCUMENTS = "Models", "Retrieval", "Documents"
SPECULATION, SAMPLING, OUTPUT = "Speculation", "Sampling", "Output"

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


def _number_or_word(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value  # the settings check the word


def _template_argument(given: str) -> Any:
    """Return the name and the value of NAME=VALUE. typer shows what it raises, with the option's name."""
    name, equals, text = given.partition("=")
    if not (equals and name):
        raise typer.BadParameter(f"{given!r} is no NAME=VALUE, such as enable_thinking=false")
    try:
        value = json.loads(text)
    except ValueError:
        said = json.dumps(text, ensure_ascii=False)
        raise typer.BadParameter(
            f"{text!r} is no JSON value: write true, false, null, a number, or a text with its quotation marks "
            f"('{name}={said}')"
        ) from None
    try:
        return next(iter(TemplateArguments({name: value}).items()))
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


def template_arguments(given: Sequence[Any] | None) -> dict[str, Any]:
    """Return the values of the option `TemplateArgument`, which its parser has made pairs of, by their names."""
    return dict(given or ())


TemplateArgument = Annotated[
    list[str] | None,
    typer.Option(
        "--template-argument",
        parser=_template_argument,
        metavar="NAME=VALUE",
        help="Argument of the model's chat template, with a JSON value, as in enable_thinking=false. Repeat the option "
        "for more.",
        rich_help_panel=MODELS,
    ),
]


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


@dataclass(frozen=True)
class SpeculationOptions:
    """Select the law of the answer and the proposer."""

    law: Annotated[
        Literal["auto", "target", "augmented", "paper", "lenient"],
        typer.Option(
            help="Distribution that the answer follows: target (lossless), augmented (p_hat), paper, or lenient "
            "(lossy). auto is augmented, and target if the drafter is smaller than the target.",
            rich_help_panel=SPECULATION,
        ),
    ] = "auto"
    eta: Annotated[
        Any,
        typer.Option(
            parser=_number_or_word,
            metavar="NUMBER|auto|nearest",
            help="Weight of the drafter in p_hat: a number, auto or nearest. Default: auto; 10 or 40 for --law paper.",
            rich_help_panel=SPECULATION,
        ),
    ] = None
    tail_rule: Annotated[
        TailRule,
        typer.Option(
            "--tail-rule",
            help="How unlikely tokens are treated in p_hat: mask, or restore (Eq. 9 of the paper).",
            rich_help_panel=SPECULATION,
        ),
    ] = "mask"
    proposer: Annotated[
        str,
        typer.Option(
            help="Source of the draft tokens: drafter, draft_lm, draft_head, draft_head_tree, prompt_lookup, "
            "retrieval_tree, datastore, hybrid, tree_hybrid, adaptive, skipped_layers, magicdec, triforce, none, or "
            "auto: tree_hybrid on processors, hybrid elsewhere, and drafter for the law paper.",
            rich_help_panel=SPECULATION,
        ),
    ] = "auto"
    datastore: Annotated[
        Path | None,
        typer.Option(
            help="Index of your own texts to copy from (rapid datastore build), for the proposers datastore, "
            "retrieval_tree and tree_hybrid.",
            rich_help_panel=SPECULATION,
        ),
    ] = None
    datastore_grows: Annotated[
        bool,
        typer.Option(
            "--datastore-grows", help="Add answers to the datastore, for later questions.", rich_help_panel=SPECULATION
        ),
    ] = False
    draft_length: Annotated[
        str, typer.Option(help="Draft tokens per round: auto or a number.", rich_help_panel=SPECULATION)
    ] = "auto"
    drafter_weights: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Weights of --drafter and of each of --more-drafters, as in 2,1. Default: all the same.",
            rich_help_panel=SPECULATION,
        ),
    ] = None
    draft_skip_layers: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Layers that the proposer skipped_layers leaves out, as in 3,5,7. Default: chosen during the request.",
            rich_help_panel=SPECULATION,
        ),
    ] = None
    chunk_cache: Annotated[
        Literal["off", "target", "view"],
        typer.Option(
            "--chunk-cache",
            help="target: the drafter takes the target's rows of the retrieved chunks. view: it reads them in place, "
            "without a copy. The first token comes sooner, and q differs a little.",
            rich_help_panel=SPECULATION,
        ),
    ] = "off"

    def config(self) -> SpeculationConfig:
        """Return the settings, checked."""
        # The settings refuse every word but "auto".
        length: Any = int(self.draft_length) if self.draft_length.isdecimal() else self.draft_length
        skipped: Any = None if self.draft_skip_layers is None else self.draft_skip_layers.split(",")
        weights: Any = None if self.drafter_weights is None else self.drafter_weights.split(",")
        return SpeculationConfig(
            law=self.law,
            eta=self.eta,
            tail_rule=self.tail_rule,
            proposer=self.proposer,
            datastore=None if self.datastore is None else str(self.datastore),
            datastore_grows=self.datastore_grows,
            draft_length=length,
            drafter_weights=weights,
            draft_skip_layers=skipped,
            chunk_cache=self.chunk_cache,
        )


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


@dataclass(frozen=True)
class DocumentOptions:
    """Select how files are read."""

    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable", help="Skip files that cannot be read and list them.", rich_help_panel=DOCUMENTS
        ),
    ] = False
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of text and HTML files. Detected per file by default.", rich_help_panel=DOCUMENTS),
    ] = None
    read_time_limit: Annotated[
        float, typer.Option(help="Maximum time for one file, in seconds.", rich_help_panel=DOCUMENTS)
    ] = 120.0

    def read(self, files: Sequence[str]) -> Documents:
        """Read the files and folders. Standard error says what was skipped or guessed."""
        from rapid_integrations.documents import read_documents

        documents = read_documents(
            files,
            skip_unreadable=self.skip_unreadable,
            encoding=self.encoding,
            time_limit_s=self.read_time_limit,
        )
        remarks = _remarks(documents)
        for remark in remarks[:_SHOWN_REMARKS]:
            say(remark)
        if (more := len(remarks) - _SHOWN_REMARKS) > 0:
            say(f"{more:,} more remarks: name fewer files to see them")
        for skipped in documents.skipped[:_NAMED_SKIPPED]:
            say(f"skipped: {skipped.source} {skipped.reason}")
        if (more := len(documents.skipped) - _NAMED_SKIPPED) > 0:
            say(f"skipped: {more:,} more")
        return documents


def _remarks(documents: Documents) -> list[str]:
    """Return a line for each remark, with the files that it is about."""
    about: dict[str, list[str]] = {}
    for document in documents:
        for remark in document.remarks:
            about.setdefault(remark, []).append(document.source)
    lines = []
    for remark, sources in sorted(about.items(), key=lambda each: -len(each[1])):
        more = len(sources) - _NAMED_SOURCES
        lines.append(f"{', '.join(sources[:_NAMED_SOURCES])}{f' and {more:,} more' if more > 0 else ''}: {remark}")
    return lines


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer the fields of a command's option groups as options of the command.

    A group is a parameter whose type is a dataclass with `Annotated` fields.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind) or not isinstance(kind, type):
            shown.append(parameter.replace(annotation=kind))
            continue
        groups[parameter.name] = kind
        of_fields = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            default = field.default if parameter.default is parameter.empty else getattr(parameter.default, field.name)
            shown.append(
                inspect.Parameter(field.name, parameter.KEYWORD_ONLY, default=default, annotation=of_fields[field.name])
            )

    @wraps(command)
    def flat(**given: Any) -> None:
        made = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**given, **made)

    keyword_only = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in shown]
    flat.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return flat
