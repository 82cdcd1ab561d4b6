"""The command `rapid read` prefills documents before the first question about them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import errors_taught, say, stderr
from rapid_integrations.cli.options import DOCUMENTS_HELP, AsJson, DocumentOptions, ServingOptions
from rapid_integrations.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid_integrations.documents import Document, Documents
    from rapid_integrations.outputs import ReadAhead


def read(
    files: Annotated[list[str], typer.Argument(help=DOCUMENTS_HELP + " - reads standard input.")],
    models: ServingOptions,
    reading: DocumentOptions,
    each: Annotated[
        bool,
        typer.Option("--each", help="Read each document for questions about it alone, not all of them for one prompt."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prefill documents now, so that the first question about them starts as soon as a second one does.

    Give the same files in the same order, and the same models, to `rapid ask`, `rapid chat` or a server with the same
    --prefix-cache-dir.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # for the same reason as in `rapid ask`
    with errors_taught(), ExitStack() as at_end:
        if models.prefix_cache_dir is None:
            raise ConfigurationError(
                "nothing would keep what is read: name a folder with --prefix-cache-dir", code="nothing_kept"
            )
        if models.prefix_cache_dir.exists() and not models.prefix_cache_dir.is_dir():
            raise ConfigurationError(
                f"{models.prefix_cache_dir} is not a folder: name one with --prefix-cache-dir", code="no_folder"
            )
        documents = reading.read(files)
        groups: Sequence[Documents | Document] = list(documents) if each else [documents]
        from rapid_integrations.cache.prefix_store import MIN_GAIN_TOKENS

        with ProgressView(stderr) as progress:
            engine = models.load(progress)
            at_end.callback(engine.close)
            lost = False
            for group, names in zip(groups, _names(documents, each), strict=True):
                done = engine.read(group, on_progress=progress)
                lost = lost or (not done.on_disk and done.tokens >= MIN_GAIN_TOKENS)
                if as_json:
                    sys.stdout.write(json.dumps({"documents": names, **done.model_dump()}) + "\n")
                else:
                    say(f"{', '.join(names)}: {_said(done)}")
        if lost:  # a warning has said why
            raise typer.Exit(1)


def _names(documents: Documents, each: bool) -> list[list[str]]:
    return [[name] for name in documents.names] if each else [list(documents.names)]


def _said(done: ReadAhead) -> str:
    earlier = f", {done.cached_tokens:,} of them earlier" if done.cached_tokens else ""
    kept = f"{done.kv_bytes / 2**20:,.0f} MiB on disk" if done.on_disk else "not kept on disk"
    return f"{done.tokens:,} tokens read{earlier}, {kept}, {done.seconds:.1f} s"
