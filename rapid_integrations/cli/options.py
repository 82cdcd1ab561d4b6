"""Options that several commands have, in groups: a command takes a group, the command line its fields."""

from __future__ import annotations

import inspect
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
    DEFAULT_EMBEDDER,
    DEFAULT_TARGET,
    SamplingParams,
    SpeculationConfig,
    StructuredOutput,
    TailRule,
)

_NAMED_SKIPPED = 10
_NAMED_SOURCES = 3  # files that one remark is about
_SHOWN_REMARKS = 30

if TYPE_CHECKING:
    from rapid_integrations.documents import Documents
    from rapid_integrations.engine.engine import RapidEngine

DOCUMENTS_HELP = "PDF, DOCX, HTML, Markdown or text files, or folders of them."

AsJson = Annotated[bool, typer.Option("--json", help="One JSON line on standard output, nothing else.")]


Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Quantized = Annotated[
    Literal["int8", "int4"] | None,
    typer.Option(help="Store the target's weights so: smaller, faster, a little worse."),
]


def _number_or_word(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value  # the settings know which words there are


@dataclass(frozen=True)
class ModelOptions:
    """Which models, in which form."""

    target: Annotated[str, typer.Option("--target", "-t", help="Packaged name, GGUF file, folder or hub name.")] = (
        DEFAULT_TARGET
    )
    drafter: Annotated[
        str | None, typer.Option("--drafter", "-d", help="Another model with the same tokenizer; default: the target.")
    ] = None
    embedder: Annotated[str, typer.Option("--embedder", help="Packaged name, folder or hub name.")] = DEFAULT_EMBEDDER
    dtype: Dtype = "auto"
    device: Device = "auto"
    quantization: Quantized = None
    drafter_quantization: Annotated[
        Literal["int8", "int4"] | None,
        typer.Option(
            help="The drafter's; default: as the target. Without a drafter, a quantised copy of the target drafts."
        ),
    ] = None
    draft_lm: Annotated[
        str | None, typer.Option("--draft-lm", help="A small model that only proposes (--proposer draft_lm, hybrid).")
    ] = None

    def load(self, progress: ProgressView, **more: Any) -> RapidEngine:
        """Load them, shown as a line of progress.

        Args:
            progress: where it is shown.
            more: of `RapidEngine.from_pretrained`, or instead of what was chosen here.
        """
        from rapid_integrations.engine.engine import RapidEngine

        progress("load models", 0, 1)
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        engine = RapidEngine.from_pretrained(on_progress=progress, **{**chosen, **more})
        progress("load models", 1, 1)
        return engine


@dataclass(frozen=True)
class ServingOptions(ModelOptions):
    """Models that serve questions, and what they keep of them."""

    trust_remote_code: Annotated[bool, typer.Option(help="Run Python code that comes with a model.")] = False
    verify: Annotated[
        Literal["isolated"] | None,
        typer.Option(help="Read a folder that you do not trust in a process of its own first."),
    ] = None
    prefix_cache_dir: Annotated[
        Path | None, typer.Option(help="Keep what was read here: the next question about a document is read sooner.")
    ] = None
    template_date: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day that a chat template writes (for --prefix-cache-dir)."),
    ] = None


@dataclass(frozen=True)
class SpeculationOptions:
    """What the answer follows, and who proposes."""

    law: Annotated[
        Literal["auto", "target", "augmented", "paper"], typer.Option(help="target is lossless, augmented is p_hat.")
    ] = "auto"
    eta: Annotated[
        Any,
        typer.Option(
            parser=_number_or_word,
            metavar="NUMBER|auto|nearest",
            help="Strength of the transfer from drafter to target.",
        ),
    ] = None
    tail_rule: Annotated[TailRule, typer.Option("--tail-rule", help="mask, or restore (Eq. 9).")] = "mask"
    proposer: Annotated[str, typer.Option(help="drafter, draft_lm, prompt_lookup, hybrid or none.")] = "drafter"
    draft_length: Annotated[str, typer.Option(help="auto, or a number.")] = "auto"

    def config(self) -> SpeculationConfig:
        """Return the settings, checked."""
        # A number where one was given; the settings refuse other words than "auto".
        length: Any = int(self.draft_length) if self.draft_length.isdigit() else self.draft_length
        return SpeculationConfig(
            law=self.law, eta=self.eta, tail_rule=self.tail_rule, proposer=self.proposer, draft_length=length
        )


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn, and when an answer ends."""

    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0
    top_k: Annotated[int, typer.Option(help="0 keeps all.")] = 0
    top_p: Annotated[float, typer.Option(help="1 keeps all.")] = 1.0
    repetition_penalty: Annotated[float, typer.Option(help="1 is off.")] = 1.0
    frequency_penalty: Annotated[float, typer.Option(help="From -2 to 2; 0 is off.")] = 0.0
    presence_penalty: Annotated[float, typer.Option(help="From -2 to 2; 0 is off.")] = 0.0
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer at most.")] = 256
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends an answer; may be repeated.")] = None
    seed: Annotated[int | None, typer.Option(help="Makes sampled output repeatable.")] = None

    def params(self, structured: StructuredOutput | None = None) -> SamplingParams:
        """Return the settings, checked."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        return SamplingParams(**{**chosen, "stop": tuple(self.stop or ())}, structured=structured)


@dataclass(frozen=True)
class DocumentOptions:
    """How files are read."""

    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read, and name them.")
    ] = False
    encoding: Annotated[str | None, typer.Option(help="Of text and HTML files; default: found out for each.")] = None
    read_time_limit: Annotated[float, typer.Option(help="Seconds that reading one file may take.")] = 120.0

    def read(self, files: Sequence[str]) -> Documents:
        """Read the files and folders that were named; what was skipped or guessed goes to standard error."""
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
    """Return what was guessed or left out, a line for each remark, with the files that it is about."""
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
