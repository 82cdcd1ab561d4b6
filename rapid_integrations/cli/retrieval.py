"""The command `rapid eval retrieval` measures evidence recall, precision and time of retrieval."""

from __future__ import annotations

import importlib.util
import json
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import errors_taught, make_folder, stderr, stdout, write_file
from rapid_integrations.cli.options import RETRIEVAL, ModelOptions, with_option_groups


@with_option_groups
def measure_retrieval(
    *,
    folder: Annotated[Path, typer.Argument(help="Folder for the figures (retrieval.jsonl, .json and .png).")],
    data: Annotated[
        Path,
        typer.Option(
            help="JSON lines with documents, questions and evidence: a file, or a folder with a file per set."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--settings",
            help="Retrieval settings to measure: a preset (default, paper), or options such as "
            "chunk_tokens=256,search=words. Default: default and paper.",
            rich_help_panel=RETRIEVAL,
        ),
    ] = None,
    models: ModelOptions,
    max_documents: Annotated[int | None, typer.Option(min=1, help="Maximum number of documents per set.")] = None,
    max_questions: Annotated[int | None, typer.Option(min=1, help="Maximum number of questions per document.")] = None,
    embedding_cache: Annotated[
        Path | None,
        typer.Option(help="File that stores embeddings. The next run is faster, and does not measure their time."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the intervals.")] = 0,
) -> None:
    """Measure how much annotated evidence reaches the drafter. The target's tokenizer counts; no model answers."""
    with errors_taught(), ExitStack() as at_end:
        from rapid_integrations.benchmarks.figures import print_table
        from rapid_integrations.compression.default_compressor import DefaultCompressor
        from rapid_integrations.evaluation.evidence import measure, read_sets, require_names
        from rapid_integrations.evaluation.evidence_report import cost_table, draw_recall, recall_table, summarise

        make_folder(folder)
        chosen = require_names(settings or ["default", "paper"])
        sets = {name: documents[:max_documents] for name, documents in read_sets(data).items()}
        if max_questions is not None:
            sets = {
                name: [replace(each, questions=each.questions[:max_questions]) for each in documents]
                for name, documents in sets.items()
            }
        with ProgressView(stderr) as progress:
            engine = models.load(progress)
            at_end.callback(engine.close)
            compressors = partial(DefaultCompressor, models.embedder, engine.vocabulary, embedding_cache)
            found = list(measure(sets, chosen, compressors, progress))
        tables = summarise(found, seed)
        lines = (json.dumps(each.as_dict(), ensure_ascii=False) for each in found)
        write_file(folder / "retrieval.jsonl", "\n".join(lines) + "\n")
        run = {
            "target": models.target,
            "embedder": models.embedder,
            "settings": {name: config.model_dump() for name, config in chosen.items()},
            "seed": seed,
        }
        write_file(folder / "retrieval.json", json.dumps({"run": run, "tables": tables}, indent=1) + "\n")
        for table in (recall_table(tables), cost_table(tables)):
            print_table(stdout, table)
        if importlib.util.find_spec("matplotlib") is None:
            stderr.print("no plot: pip install 'rapid-integrations[eval]'", markup=False)
            return
        draw_recall(tables, folder / "retrieval.png")
        stderr.print(str(folder / "retrieval.png"), highlight=False)
