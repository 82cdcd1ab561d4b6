"""The command `rapid datastore build` indexes texts that answers may be copied from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import errors_taught, require_writable, stderr
from rapid_integrations.cli.options import DOCUMENTS_HELP, DocumentOptions, ModelOptions, with_option_groups

datastore_app = typer.Typer(
    help="Index your own texts. Tokens that followed the same words there are proposed to the target, which checks "
    "them: answers become faster, and stay the same.",
    no_args_is_help=True,
)


@datastore_app.callback()
def _group() -> None:
    """Keep the name of the command `build`, which is the only one."""


@datastore_app.command("build")
@with_option_groups
def build(
    *,
    files: Annotated[list[str], typer.Argument(help=DOCUMENTS_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the index.")],
    models: ModelOptions,
    reading: DocumentOptions,
) -> None:
    """Index documents, or past answers, for --datastore. The index holds tokens of the target's tokenizer."""
    with errors_taught():
        from rapid_integrations.cache.datastore import write_datastore

        require_writable(output)
        texts = [document.text for document in reading.read(files)]
        with ProgressView(stderr) as progress, models.load(progress) as engine:
            vocabulary = engine.vocabulary
            token_ids = [vocabulary.encode(text) for text in texts]
            tokens = write_datastore(output, token_ids, min(vocabulary.eos_token_ids), vocabulary.digest)
        sys.stdout.write(f"{output}: {tokens:,} tokens of {len(texts)} documents, {output.stat().st_size:,} bytes\n")
