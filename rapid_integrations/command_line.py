"""What the commands share: options, consoles, how an engine is loaded and how errors are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from rapid_integrations.__main__ import INTERRUPTED
from rapid_integrations.config import TailRule
from rapid_integrations.errors import ConfigurationError, RapidError
from rapid_integrations.terminal import ProgressView, printable

if TYPE_CHECKING:
    from rapid_integrations.documents import Documents
    from rapid_integrations.engine import RapidEngine
    from rapid_integrations.outputs import Completion

stdout = Console()
stderr = Console(stderr=True)  # progress and tables, so that the answer alone can be piped

DOCUMENTS_HELP = "PDF, DOCX, HTML, Markdown or text files, or folders of them."


def _number_or_word(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value  # the settings know which words there are


Target = Annotated[str, typer.Option("--target", "-t", help="Packaged name, GGUF file, folder or hub name.")]
Drafter = Annotated[
    str | None, typer.Option("--drafter", "-d", help="Another model with the same tokenizer; default: the target.")
]
EmbedderName = Annotated[str, typer.Option("--embedder", help="Packaged name, folder or hub name.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Quantized = Annotated[
    Literal["int8", "int4"] | None, typer.Option(help="Store the target's weights so: smaller, faster, a little worse.")
]
DrafterQuantized = Annotated[
    Literal["int8", "int4"] | None,
    typer.Option(
        help="The drafter's; default: as the target. Without a drafter, a quantised copy of the target drafts."
    ),
]
DraftModel = Annotated[
    str | None, typer.Option("--draft-lm", help="A small model that only proposes (--proposer draft_lm, hybrid).")
]
LawName = Annotated[
    Literal["auto", "target", "augmented", "paper"], typer.Option(help="target is lossless, augmented is p_hat.")
]
Eta = Annotated[
    Any,
    typer.Option(
        parser=_number_or_word, metavar="NUMBER|auto|nearest", help="Strength of the transfer from drafter to target."
    ),
]
Proposer = Annotated[str, typer.Option(help="drafter, draft_lm, prompt_lookup, hybrid or none.")]
TailRuleName = Annotated[TailRule, typer.Option("--tail-rule", help="mask, or restore (Eq. 9).")]
DraftLength = Annotated[str, typer.Option(help="auto, or a number.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
TopK = Annotated[int, typer.Option(help="0 keeps all.")]
TopP = Annotated[float, typer.Option(help="1 keeps all.")]
RepetitionPenalty = Annotated[float, typer.Option(help="1 is off.")]
MaxNewTokens = Annotated[int, typer.Option(help="Length of an answer at most.")]
Stop = Annotated[list[str] | None, typer.Option(help="A string that ends an answer; may be repeated.")]
Seed = Annotated[int | None, typer.Option(help="Makes sampled output repeatable.")]
TrustRemoteCode = Annotated[bool, typer.Option(help="Run Python code that comes with a model.")]
PrefixCacheDir = Annotated[
    Path | None, typer.Option(help="Keep what was read here: the next question about a document is read sooner.")
]
TemplateDate = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="The day that a chat template writes (for --prefix-cache-dir)."),
]
Encoding = Annotated[str | None, typer.Option(help="Of text and HTML files; default: found out for each.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read, and name them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line on standard output, nothing else.")]


def open_documents(files: Sequence[str], skip_unreadable: bool, encoding: str | None) -> Documents:
    """Read the files and folders that were named; what was skipped or guessed goes to standard error."""
    from rapid_integrations.documents import read_documents

    documents = read_documents(files, skip_unreadable=skip_unreadable, encoding=encoding)
    for document in documents:
        for remark in document.remarks:
            say(f"{document.source}: {remark}")
    for skipped in documents.skipped:
        say(f"skipped: {skipped.source} {skipped.reason}")
    return documents


def say(message: str) -> None:
    """Write a line to standard error; what documents and files are called is no markup there."""
    stderr.print(printable(message), markup=False, highlight=False, soft_wrap=True)


def write_answer(text: str) -> None:
    """Write a piece of an answer to standard output at once; a terminal gets no control characters of it."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def require_writable(path: Path) -> None:
    """Refuse a place for a page before the models are loaded, not after the answer."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"{path} cannot be written: name a file in a folder that exists and can be written to")


def write_trace(path: Path, completion: Completion, names: Sequence[str]) -> None:
    """Write the page about an answer, and say where."""
    from rapid_integrations.trace import write_html

    write_html(path, completion, names)
    say(f"trace: {path}")


def draft_length_of(value: str) -> Any:
    """Return a number where one was given; the settings refuse other words than "auto"."""
    return int(value) if value.isdigit() else value


def load_engine(progress: ProgressView, target: str, drafter: str | None, **options: Any) -> RapidEngine:
    """Load the models, shown as a line of progress; `options` are those of `RapidEngine.from_pretrained`."""
    from rapid_integrations.engine import RapidEngine

    progress("load models", 0, 1)
    engine = RapidEngine.from_pretrained(target, drafter, on_progress=progress, **options)
    progress("load models", 1, 1)
    return engine


def show_error(error: RapidError) -> None:
    """Write an error as one sentence."""
    stderr.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
    stderr.print(printable(str(error)), markup=False, highlight=False)


@contextmanager
def errors_taught() -> Iterator[None]:
    """Show this package's errors as one sentence, and Ctrl-C as what it is; anything else keeps its traceback."""
    try:
        yield
    except RapidError as error:
        show_error(error)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        stderr.print("\ninterrupted")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader of the answer has gone
        sys.stderr.close()
        raise typer.Exit(0) from None
