"""The `rapid` command: thin, over the same front door that a program uses."""

from __future__ import annotations

import itertools
import json
import os
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rapid_integrations.benchmarks.commands import bench_app
from rapid_integrations.command_line import (
    AsJson,
    Device,
    Drafter,
    DrafterQuantized,
    DraftModel,
    Dtype,
    EmbedderName,
    Eta,
    LawName,
    Proposer,
    Quantized,
    Target,
    errors_taught,
    load_engine,
    stderr,
    stdout,
)
from rapid_integrations.config import SamplingParams, SpeculationConfig, StructuredOutput, TailRule
from rapid_integrations.documents import read_documents
from rapid_integrations.eval_cli import eval_app
from rapid_integrations.json_file import read_json_object
from rapid_integrations.outputs import Completion
from rapid_integrations.prompt import Prompt
from rapid_integrations.terminal import ProgressView, chunks_table, stats_table

app = typer.Typer(
    help="Questions over long documents, answered by retrieval-augmented speculative decoding (RAPID).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Models that come inside PyPI wheels and need no account.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(bench_app, name="bench")
app.add_typer(eval_app, name="eval")


@app.command()
def ask(
    files: Annotated[list[str], typer.Argument(help="Text or Markdown files; - is standard input.")],
    question: Annotated[str, typer.Option("--question", "-q", help="What to ask about them.")],
    target: Target = "smollm2-135m-instruct",
    drafter: Drafter = None,
    embedder: EmbedderName = "all-minilm-l6-v2",
    law: LawName = "auto",
    eta: Eta = None,
    tail_rule: Annotated[TailRule, typer.Option(help="mask, or restore (Eq. 9).")] = "mask",
    proposer: Proposer = "drafter",
    draft_length: Annotated[str, typer.Option(help="auto, or a number.")] = "auto",
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(help="1 keeps all.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(help="1 is off.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the answer at most.")] = 256,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the answer; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampled output repeatable.")] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="File with a JSON schema: the answer is JSON that satisfies it.")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantization: Quantized = None,
    drafter_quantization: DrafterQuantized = None,
    draft_lm: DraftModel = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run Python code that comes with a model.")] = False,
    prefix_cache_dir: Annotated[
        Path | None, typer.Option(help="Keep what was read here: the next question about a document is read sooner.")
    ] = None,
    template_date: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day that a chat template writes (for --prefix-cache-dir)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question over one or more documents."""
    # Read when torch loads: waiting threads sleep. Where they spin, the default, a token takes a fifth less time on an
    # idle machine and up to 50 times more beside a busy process (docs/LOG.md). The benchmark keeps the default.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with errors_taught(), ExitStack() as at_end:
        sampling = SamplingParams(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            max_new_tokens=max_new_tokens,
            stop=tuple(stop or ()),
            seed=seed,
            structured=None if json_schema is None else StructuredOutput(json_schema=read_json_object(json_schema)),
        )
        speculation = SpeculationConfig(
            law=law, eta=eta, tail_rule=tail_rule, proposer=proposer, draft_length=_draft_length(draft_length)
        )
        names = ["standard input" if file == STDIN else file for file in files]
        prompt = Prompt.from_context([read_document(file) for file in files], question)
        with ProgressView(stderr) as progress:
            engine = load_engine(
                progress,
                target,
                drafter,
                embedder=embedder,
                dtype=dtype,
                device=device,
                quantization=quantization,
                drafter_quantization=drafter_quantization,
                draft_lm=draft_lm,
                trust_remote_code=trust_remote_code,
                prefix_cache_dir=prefix_cache_dir,
                template_date=template_date,
            )
            at_end.callback(engine.close)
            stream = engine.stream(prompt, sampling=sampling, speculation=speculation, on_progress=progress)
            first = next(stream)  # what takes long comes before it: the progress shown is that of the prefill
        chunks = []
        with stream:
            for chunk in itertools.chain([first], stream):
                chunks.append(chunk)
                if not as_json:
                    sys.stdout.write(chunk.text)
                    sys.stdout.flush()
        completion = Completion.join(chunks, stream.prepared.retrieved)
        if as_json:
            sys.stdout.write(completion.model_dump_json() + "\n")
            return
        sys.stdout.write("\n")
        stderr.print()
        if completion.retrieved:
            stderr.print(chunks_table(completion.retrieved, names))
            stderr.print()
        stderr.print(stats_table(completion))


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the packaged models and whether they are on this machine."""
    from rapid_integrations.models import packaged

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


@models_app.command("pull")
def pull_models(
    names: Annotated[list[str] | None, typer.Argument(help="Packaged names; none given: all of them.")] = None,
    force: Annotated[bool, typer.Option(help="Fetch again what is already there.")] = False,
) -> None:
    """Fetch packaged models, check them, and print where they lie."""
    from rapid_integrations.models import packaged

    with errors_taught():
        for name in names or list(packaged.MODELS):
            with ProgressView(stderr) as progress:
                path = packaged.pull(name, progress, force=force)
            sys.stdout.write(f"{path}\n")


def _draft_length(value: str) -> Any:
    return int(value) if value.isdigit() else value
