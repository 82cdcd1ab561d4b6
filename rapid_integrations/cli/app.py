"""The `rapid` command. It is a thin layer over the engine's public interface."""

from __future__ import annotations

import itertools
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.bench import bench_app
from rapid_integrations.cli.cached import cache_app
from rapid_integrations.cli.chat import chat
from rapid_integrations.cli.console import errors_taught, require_writable, stderr, stdout, write_answer, write_trace
from rapid_integrations.cli.datastore import datastore_app
from rapid_integrations.cli.evaluate import eval_app
from rapid_integrations.cli.options import (
    DOCUMENTS_HELP,
    OUTPUT,
    AsJson,
    DocumentOptions,
    SamplingOptions,
    ServingOptions,
    SpeculationOptions,
    with_option_groups,
)
from rapid_integrations.cli.read import read
from rapid_integrations.cli.serve import keys_app, serve
from rapid_integrations.cli.tables import chunks_table, sources_table, stats_table
from rapid_integrations.cli.train_head import train_head
from rapid_integrations.config import DEFAULT_EMBEDDER, DEFAULT_TARGET, StructuredOutput
from rapid_integrations.documents.json_file import read_json_object
from rapid_integrations.outputs import Completion
from rapid_integrations.prompt import Prompt

app = typer.Typer(
    help="Answer questions over long documents with retrieval-augmented speculative decoding (RAPID).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(
    help="Manage the packaged models. They come from PyPI wheels and need no account.", no_args_is_help=True
)
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")
app.add_typer(bench_app, name="bench")
app.add_typer(eval_app, name="eval")
app.add_typer(keys_app, name="keys")
app.add_typer(datastore_app, name="datastore")


@app.command()
@with_option_groups
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
            sys.stdout.write(completion.model_dump_json() + "\n")
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


app.command()(with_option_groups(chat))
app.command()(with_option_groups(read))
app.command()(with_option_groups(serve))
app.command("train-head")(with_option_groups(train_head))


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the packaged models and whether they are on this machine."""
    from rapid_integrations import packaged

    with errors_taught():
        rows = [
            {
                "name": model.name,
                "kind": model.kind,
                "megabytes": round(model.size_bytes / 1e6),
                "licence": model.licence,
                "pulled": packaged.is_pulled(model.name),
                "description": model.description,
            }
            for model in packaged.MODELS.values()
        ]
        if as_json:
            sys.stdout.write(json.dumps(rows) + "\n")
            return
        table = Table(show_edge=False)
        for column in rows[0]:
            justify: Any = "right" if column == "megabytes" else "left"
            table.add_column(column, justify=justify, no_wrap=column != "description")
        for row in rows:
            table.add_row(*("yes" if v is True else "no" if v is False else str(v) for v in row.values()))
        stdout.print(table)


@models_app.command("check")
def check_model(
    name: Annotated[str, typer.Argument(help="Model folder, or name on the Hugging Face hub.")],
    as_json: AsJson = False,
) -> None:
    """Say from its configuration alone whether and how a model would run. No weights are read."""
    with errors_taught():
        from rapid_integrations.models.kinds_of_run import check

        kind = check(name)
        if as_json:
            sys.stdout.write(json.dumps(vars(kind)) + "\n")
        else:
            sys.stdout.write(f"{kind.how}: {kind.architecture or name}\n")
            if kind.reason:
                sys.stdout.write(kind.reason + "\n")
            if kind.weights:
                sys.stdout.write(kind.weights + "\n")
    if kind.how == "refused":
        raise typer.Exit(1)


@models_app.command("pull")
def pull_models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Packaged names. Default: the target and the embedder.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Fetch models again that are already on this machine.")] = False,
) -> None:
    """Fetch packaged models, verify their checksums and print their paths."""
    from rapid_integrations import packaged

    with errors_taught():
        for name in names or (DEFAULT_TARGET, DEFAULT_EMBEDDER):
            with ProgressView(stderr) as progress:
                path = packaged.pull(name, progress, force=force)
            sys.stdout.write(f"{path}\n")
