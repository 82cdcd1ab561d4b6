"""The command `rapid eval` runs tasks by methods and the paper's studies, and writes tables and plots."""

from __future__ import annotations

import importlib.util
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import errors_taught, say, stderr, stdout, write_file
from rapid_integrations.cli.options import (
    RETRIEVAL,
    SAMPLING,
    ModelOptions,
    TemplateArgument,
    template_arguments,
    with_option_groups,
)
from rapid_integrations.cli.retrieval import measure_retrieval
from rapid_integrations.config import CompressionConfig, SamplingParams
from rapid_integrations.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid_integrations.evaluation.summary import Summary

PREDICTIONS = "predictions.jsonl"

eval_app = typer.Typer(help="Compare RAPID's answer quality and decode speed with other methods.", no_args_is_help=True)
eval_app.command("retrieval")(measure_retrieval)

Folder = Annotated[Path, typer.Argument(help="Folder of the run. It holds predictions, summary and plots.")]
DEFAULT_METHODS = ("lc", "rag", "sd", "rapid")


@eval_app.command("run")
@with_option_groups
def run(
    *,
    folder: Folder,
    tasks: Annotated[
        list[str],
        typer.Option(
            "--task", help="Task to run; `rapid eval tasks` lists them. task@TOKENS sets the document length."
        ),
    ],
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="Method to run, such as rapid:eta=5,tail=restore. Default: the study's methods."),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Study to run: main, robustness, lengths, dialogue or success.")
    ] = None,
    lengths: Annotated[
        list[int] | None, typer.Option("--length", help="Context length for the study of lengths, in tokens.")
    ] = None,
    retrieved: Annotated[
        list[int] | None, typer.Option(help="Retrieved length for the study of lengths, in tokens.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder or file with the published data. Default: fetch it from the hub.")
    ] = None,
    models: ModelOptions,
    template_argument: TemplateArgument = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Maximum document length, in tokens. Default: the context window.")
    ] = None,
    max_documents: Annotated[int | None, typer.Option(min=1, help="Maximum number of documents per task.")] = None,
    max_questions: Annotated[int | None, typer.Option(min=1, help="Maximum number of questions per document.")] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of a document's questions to ask at once. Speeds are measured of questions asked "
            "alone. Default: 8, or 1 with a study that compares speeds.",
        ),
    ] = None,
    letters: Annotated[bool, typer.Option(help="Constrain multiple-choice answers to the options' letters.")] = False,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature. 0 decodes greedily.", rich_help_panel=SAMPLING)
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(help="Random seed of sampling, generated tasks and intervals.", rich_help_panel=SAMPLING)
    ] = 0,
    retrieval: Annotated[
        Literal["default", "paper"],
        typer.Option(
            help="Preset of retrieval, as in `rapid_integrations.CompressionConfig`.", rich_help_panel=RETRIEVAL
        ),
    ] = "default",
    chunk_tokens: Annotated[
        int | None,
        typer.Option(help="Length of a chunk, in tokens. Default: the preset's.", rich_help_panel=RETRIEVAL),
    ] = None,
    min_tokens: Annotated[
        int,
        typer.Option(help="Retrieval budget, as in `rapid_integrations.CompressionConfig`.", rich_help_panel=RETRIEVAL),
    ] = 4096,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many minutes. The same command resumes the run.")
    ] = None,
    prefix_cache: Annotated[
        Path | None,
        typer.Option(help="Cache prefilled documents in this folder. Methods that are added later reuse them."),
    ] = None,
) -> None:
    """Answer every question of the tasks with every method. The same command resumes a run that stopped."""
    with errors_taught(), ExitStack() as at_end:
        from rapid_integrations.evaluation.methods import parse_method
        from rapid_integrations.evaluation.predictions import PredictionFile
        from rapid_integrations.evaluation.runner import AT_ONCE, Runner
        from rapid_integrations.evaluation.studies import StudyPlan, plan_study
        from rapid_integrations.evaluation.tasks import plan_task
        from rapid_integrations.sampling.adaptive_eta import ETA_RULE

        plan = StudyPlan(DEFAULT_METHODS)
        if study is not None:
            other = models.drafter not in (None, models.target) or models.drafter_quantization not in (
                None,
                models.quantization,
            )
            plan = plan_study(study, other_drafter=other, lengths=lengths or (), retrieved=retrieved or ())
        chosen = [parse_method(text) for text in dict.fromkeys(methods or plan.methods)]
        made = max_documents or 8
        planned = [
            plan_task(text, data, letters=letters, seed=seed, documents=made, context_tokens=context)
            for text in ([f"{task}@{length}" for task in tasks for length in plan.lengths] if plan.lengths else tasks)
        ]
        size: dict[str, Any] = {} if chunk_tokens is None else {"chunk_tokens": chunk_tokens}
        compression = CompressionConfig(preset=retrieval, min_tokens=min_tokens, **size)
        arguments = template_arguments(template_argument)
        file = PredictionFile(
            folder / PREDICTIONS,
            {
                **settings_of(models),
                "temperature": temperature,
                "seed": seed,
                "letters": letters,
                "context": context,
                "compression": compression.model_dump(),
                "eta_rule": ETA_RULE,
                **({"chat_template_kwargs": arguments} if arguments else {}),
            },
            defaults={"compression": CompressionConfig(preset=retrieval).model_dump()},
        )
        with ProgressView(stderr) as progress:
            engine = models.load(
                progress,
                embedding_cache=folder / "embeddings.sqlite",
                prefix_cache_dir=prefix_cache,
                compression=compression,
                chat_template_kwargs=arguments,
            )
            at_end.callback(engine.close)
            runner = Runner(
                engine,
                sampling=SamplingParams(temperature=temperature),
                seed=seed,
                max_documents=max_documents,
                max_questions=max_questions,
                at_once=at_once or (1 if plan.timed else AT_ONCE),
                on_progress=progress,
            )
            whole = runner.run(planned, chosen, file, max_seconds=None if minutes is None else 60 * minutes)
        for label, cut in runner.cut.items():
            say(f"{label}: {len(cut):,} of the documents did not fit and lost their middle, with whatever stood there")
        if not whole:
            stderr.print("stopped at the time limit: the same command goes on")
        _report(folder, [method.name for method in chosen])


def settings_of(models: ModelOptions) -> dict[str, Any]:
    """Return what predictions depend on of the models. It does not say on which device they run."""
    further = {  # a run that had none of these does not name them, as those of earlier versions
        "more_drafters": list(models.more_drafters or ()),
        "draft_head": models.draft_head,
        "kv_dtype": models.kv_dtype,
        "sparse_prefill": models.sparse_prefill,
    }
    return {
        "target": models.target,
        "drafter": models.drafter or models.target,
        "draft_lm": models.draft_lm,
        "quantization": [models.quantization, models.drafter_quantization or models.quantization],
        "embedder": models.embedder,
        "dtype": models.dtype,
        **{name: value for name, value in further.items() if value},
    }


@eval_app.command("report")
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders of runs. Several runs are shown in one table.")
    ],
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Methods to compare. Default: all methods that a task has.")
    ] = None,
    baseline: Annotated[str, typer.Option(help="Method that the others are compared with.")] = "lc",
    half: Annotated[
        Literal["tune", "test"] | None,
        typer.Option(help="Use half of the questions. Choose settings on one half and report them on the other."),
    ] = None,
) -> None:
    """Rewrite the tables and plots of a run, which may be unfinished. No model is loaded.

    If several runs are given, only the tables are shown, for the methods that all of their tasks have.
    """
    with errors_taught():
        if len(folders) == 1:
            _report(folders[0], methods, baseline, half)
        else:
            _report_together(folders, methods, baseline, half)


@eval_app.command("tasks")
def list_tasks() -> None:
    """List the tasks, the methods and the studies."""
    from rapid_integrations.evaluation.methods import METHODS
    from rapid_integrations.evaluation.studies import STUDIES
    from rapid_integrations.evaluation.tasks import TASKS

    for title, known in (("task", TASKS), ("method", METHODS), ("study", STUDIES)):
        table = Table(show_edge=False)
        table.add_column(title, no_wrap=True)
        table.add_column("what it is")
        for name, what in known.items():
            table.add_row(name, what)
        stdout.print(table)
        stdout.print()


def _report(folder: Path, methods: list[str] | None, baseline: str = "lc", half: str | None = None) -> None:
    from rapid_integrations.evaluation.figures import draw
    from rapid_integrations.evaluation.predictions import read_predictions
    from rapid_integrations.evaluation.studies import patterns, summaries
    from rapid_integrations.evaluation.summary import Summary, comparable

    settings, predictions = read_predictions(folder / PREDICTIONS)
    predictions = [prediction for prediction in predictions if half in (None, prediction.half)]
    if half is not None and not predictions:
        raise ConfigurationError(
            f"{folder} has no predictions of the half {half} yet: leave out --half, or continue it"
        )
    _require_baseline(baseline, {p.method for p in predictions})
    seed = settings.get("seed", 0)
    if methods:
        compared = [Summary(predictions, methods=methods, seed=seed, baseline=baseline)]
    else:
        compared = comparable(predictions, seed, baseline)
    for summary in compared:
        _show(summary)
    studies = summaries(predictions, seed)  # their pictures compare with lc, as in the paper
    figures: dict[str, Any] = {"run": settings, "tables": [summary.as_dict() for summary in compared]}
    if "success" in studies:
        figures["right"] = {" ".join(right) or "none": count for right, count in patterns(studies["success"]).items()}
    over = "" if baseline == "lc" else f"-over-{baseline.replace(':', '-')}"
    variant = over + (f"-{half}" if half else "")
    write_file(folder / f"summary{variant}.json", json.dumps(figures, indent=1) + "\n")
    if over:
        return
    if importlib.util.find_spec("matplotlib") is None:
        stderr.print("no plots: pip install 'rapid-integrations[eval]'", markup=False)
        return
    for study, of_study in studies.items():
        picture = folder / f"{study}{variant}.png"
        draw(study, of_study, picture, _title(settings))
        stderr.print(str(picture), highlight=False)


def _report_together(folders: list[Path], methods: list[str] | None, baseline: str, half: str | None) -> None:
    from rapid_integrations.evaluation.predictions import Prediction, read_predictions
    from rapid_integrations.evaluation.summary import Summary, well_covered

    names = _labels(folders)
    by_task: dict[str, list[Prediction]] = {}
    for folder, name in zip(folders, names, strict=True):
        _, predictions = read_predictions(folder / PREDICTIONS)
        chosen = [p for p in predictions if half in (None, p.half)]
        if not chosen:
            raise ConfigurationError(f"{folder} has no predictions{f' of the half {half}' if half else ''} yet")
        for prediction in chosen:
            task = f"{prediction.task}, {name}"  # runs of other models may have the same tasks
            by_task.setdefault(task, []).append(prediction.model_copy(update={"task": task}))
    covered = {task: well_covered(of_task) for task, of_task in by_task.items()}
    known = list(dict.fromkeys(method for of_task in covered.values() for method in of_task))
    common = [method for method in methods or known if all(method in of_task for of_task in covered.values())]
    if common != (methods or common) or not common:
        told = "; ".join(f"{task}: {', '.join(of_task)}" for task, of_task in covered.items())
        raise ConfigurationError(f"no table over methods that a task does not have. What answers most of each: {told}")
    _require_baseline(baseline, set(common))
    _show(Summary([p for of_task in by_task.values() for p in of_task], methods=common, baseline=baseline))


def _labels(folders: list[Path]) -> list[str]:
    """Return the folders' names, with as many parent folders as are needed to make them unique."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ConfigurationError("a run was given twice: each counts once")
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _require_baseline(baseline: str, methods: set[str]) -> None:
    there = methods | {"lc"}
    if methods and baseline not in there:
        known = ", ".join(sorted(there))
        raise ConfigurationError(f"--baseline {baseline} has no predictions here; there are: {known}")


def _show(summary: Summary) -> None:
    from rapid_integrations.benchmarks.figures import print_table
    from rapid_integrations.evaluation import results_table as of

    tables = [of.results_table(summary), of.gains_table(summary), of.better_table(summary), of.decoding_table(summary)]
    for table in [*tables, *(of.groups_table(summary, task) for task in summary.tasks)]:
        if table is not None:
            print_table(stdout, table)


def _title(settings: dict[str, Any]) -> str:
    names = [Path(settings[role]).name for role in ("target", "drafter")]
    return names[0] if names[0] == names[1] else f"{names[0]}, drafter {names[1]}"
