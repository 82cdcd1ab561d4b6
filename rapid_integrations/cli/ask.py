"""The command `rapid ask`."""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import (
    errors_taught,
    require_writable,
    stderr,
    write_answer,
    write_json,
    write_trace,
)
from rapid_integrations.cli.options import (
    DOCUMENTS_HELP,
    OUTPUT,
    AsJson,
    DocumentOptions,
    SamplingOptions,
    ServingOptions,
    SpeculationOptions,
)
from rapid_integrations.cli.tables import chunks_table, sources_table, stats_table
from rapid_integrations.config import StructuredOutput
from rapid_integrations.documents.json_file import read_json_object
from rapid_integrations.outputs import Completion
from rapid_integrations.prompt import Prompt


def ask(
    files: Annotated[list[str], typer.Argument(help=DOCUMENTS_HELP + " - reads standard input.")],
    question: Annotated[str, typer.Option("--question", "-q", help="Question about the documents.")],
    models: ServingOptions,
    transfer: SpeculationOptions,
    sampling: SamplingOptions,
    reading: DocumentOptions,
    json_schema: Annotated[
        Path | None,
        typer.Option(help="File with a JSON schema. The answer is JSON that satisfies it.", rich_help_panel=OUTPUT),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML page to this file. It shows where each token came from and what the drafter read.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question over one or more documents."""
    # torch reads this when it loads. It lets waiting threads sleep. If they spin, which is the default, a token takes a
    # fifth less time on an idle machine, but up to 50 times more beside a busy process (docs/log/). The benchmark keeps
    # the default.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with errors_taught(), ExitStack() as at_end:
        structured = None if json_schema is None else StructuredOutput(json_schema=read_json_object(json_schema))
        params, speculation = sampling.params(structured), transfer.config()
        if trace is not None:
            require_writable(trace)
        documents = reading.read(files)
        prompt = Prompt.from_context(
            [document.text for document in documents],
            question,
            names=documents.names if len(documents) > 1 else None,
        )
        with ProgressView(stderr) as progress:
            engine = models.load(progress)
            at_end.callback(engine.close)
            stream = engine.stream(
                prompt, sampling=params, speculation=speculation, trace=trace is not None, on_progress=progress
            )
            first = next(stream)  # prefill happens here, so the progress view shows it
        chunks = []
        with stream:
            for chunk in itertools.chain([first], stream):
                chunks.append(chunk)
                if not as_json:
                    write_answer(chunk.text)
        completion = Completion.join(chunks, stream.prepared.retrieved, stream.trace)
        if as_json:
            write_json(completion.model_dump_json())
        else:
            sys.stdout.write("\n")
            sys.stdout.flush()
            stderr.print()
            if completion.sources:
                stderr.print(sources_table(completion, documents))
                stderr.print()
            if completion.retrieved:
                stderr.print(chunks_table(completion.retrieved, documents.names))
                stderr.print()
            stderr.print(stats_table(completion))
        if trace is not None:
            write_trace(trace, completion, documents.names)
