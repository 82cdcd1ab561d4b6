"""What the commands share: options, consoles, how an engine is loaded and how errors are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from rapid_integrations.__main__ import INTERRUPTED
from rapid_integrations.errors import RapidError
from rapid_integrations.terminal import ProgressView

if TYPE_CHECKING:
    from rapid_integrations.engine import RapidEngine

stdout = Console()
stderr = Console(stderr=True)  # progress and tables, so that the answer alone can be piped

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
Eta = Annotated[float | None, typer.Option(help="Strength of the transfer from drafter to target.")]
Proposer = Annotated[str, typer.Option(help="drafter, draft_lm, prompt_lookup, hybrid or none.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line on standard output, nothing else.")]


def load_engine(progress: ProgressView, target: str, drafter: str | None, **options: Any) -> RapidEngine:
    """Load the models, shown as a line of progress; `options` are those of `RapidEngine.from_pretrained`."""
    from rapid_integrations.engine import RapidEngine

    progress("load models", 0, 1)
    engine = RapidEngine.from_pretrained(target, drafter, on_progress=progress, **options)
    progress("load models", 1, 1)
    return engine


@contextmanager
def errors_taught() -> Iterator[None]:
    """Show this package's errors as one sentence, and Ctrl-C as what it is; anything else keeps its traceback."""
    try:
        yield
    except RapidError as error:
        stderr.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        stderr.print(str(error), markup=False, highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        stderr.print("\ninterrupted")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader of the answer has gone
        sys.stderr.close()
        raise typer.Exit(0) from None
