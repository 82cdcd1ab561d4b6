"""Measure how long people wait for the first token of an answer about a document, in processes of their own.

cold      the first question to a process that has just been started: from its start, modules and models included
first     the first question to a process that has answered a question about another text
ahead     the same, but the process has read the document ahead (`RapidEngine.read`)
second    another question about the document, to the process of "first"
restart   the second question to a new process, from its start; it finds the files of the process of "ahead"

Every engine, this one included, is measured in the same way: one process for "cold", one for "first" and "second", one
for "ahead", one for "restart". They get the same tokens of prompt and the same number of threads. The engines take
turns, stage by stage. Before a restart, the files are dropped from the operating system's page cache, if it allows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from rapid_integrations.benchmarks.decode import ALONE
from rapid_integrations.benchmarks.measured_process import run_measured
from rapid_integrations.benchmarks.peers import PEERS, peer_class, require_known
from rapid_integrations.benchmarks.prompts import document_start, room_beside
from rapid_integrations.benchmarks.waits import PARTS, PRIOR, RUNS, STAGES, Wait
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.questions import QuestionPair
from rapid_integrations.evaluation.timing import describe_machine, spread
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import Prompt

OWN_METHODS: Final = ("rapid", "target")
_FIGURES: Final = ("first_token_s", "first_token_cpu_s", "total_s")


@dataclass
class QuestionResult:
    """All waits of a benchmark.

    Attributes:
        target, drafter: names of the models.
        machine: see `describe_machine`.
        waits: `waits[method][stage]`, one per pair of questions.
        settings: of each method.
        skipped: for each peer that failed, the reason of its first failure.
        lacks: for each peer, the reason for each stage that it has not.
    """

    target: str
    drafter: str
    machine: dict[str, str | int]
    waits: dict[str, dict[str, list[Wait]]] = field(default_factory=dict)
    settings: dict[str, dict[str, str | float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, method: str, stage: str, wait: Wait) -> None:
        """Store a wait."""
        self.waits.setdefault(method, {}).setdefault(stage, []).append(wait)

    def seconds(self, method: str, stage: str, figure: str) -> list[float]:
        """Return one attribute of `Wait` for each pair."""
        return [getattr(wait, figure) for wait in self.waits.get(method, {}).get(stage, ())]

    def ratios(self, figure: str, of: tuple[str, str], over: tuple[str, str]) -> list[float]:
        """Return the ratio of an attribute between two (method, stage), one per pair that both have answered."""
        return [a / b for a, b in zip(self.seconds(*of, figure), self.seconds(*over, figure), strict=False) if b > 0]

    def summary(self) -> dict[str, Any]:
        """Return all figures, ready for JSON. Seconds are medians over the pairs."""
        first = self.waits["rapid"]["cold"]
        return {
            "benchmark": "question",
            "methods": {method: self._summary(method) for method in self.waits},
            "pairs": len(first),
            "prompt_tokens": spread([wait.prompt_tokens for wait in first]),
            "target": self.target,
            "drafter": self.drafter,
            "settings": self.settings,
            "skipped": self.skipped,
            "lacks": self.lacks,
            "machine": self.machine,
        }

    def _summary(self, method: str) -> dict[str, Any]:
        stages: dict[str, Any] = {}
        for stage in STAGES:
            if not (waits := self.waits[method].get(stage)):
                continue
            row: dict[str, Any] = {figure: _short(median(self.seconds(method, stage, figure))) for figure in _FIGURES}
            row["parts"] = {
                part: _short(median(wait.parts[part] for wait in waits)) for part in PARTS if part in waits[0].parts
            }
            cached = [wait.cached_tokens / wait.prompt_tokens for wait in waits if wait.cached_tokens is not None]
            row["cached_share"] = round(median(cached), 4) if cached else None
            row["tokens"] = sum(wait.tokens for wait in waits)
            if stage in PRIOR and self.waits[method].get(PRIOR[stage]):
                row[f"of_{PRIOR[stage]}"] = {
                    figure: spread(self.ratios(figure, (method, stage), (method, PRIOR[stage])))
                    for figure in _FIGURES
                    if self.ratios(figure, (method, stage), (method, PRIOR[stage]))
                }
            row["of_rapid"] = {
                figure: spread(found)
                for figure in _FIGURES
                if (found := self.ratios(figure, (method, stage), ("rapid", stage)))
            }
            stages[stage] = row
        return stages


class QuestionBench:
    """Asks pairs of questions.

    Args:
        start: returns an engine, which renders the prompts and is closed before anything is measured.
        child: the command of a process (see `cli.question_child`).
        told: "engine", "target", "drafter" and "kv_cache" for it.
        folder: an empty folder for the files of restarts, with room for the KV caches of one document per method.
        speculation: settings of "rapid".
        context_tokens: maximum length of the target's prompt, which is cut at the document's end.
        new_tokens: maximum length of an answer.
        peers: names as in `benchmarks.peers`.
        on_progress: is called with ("benchmark", done, total).

    Raises:
        ConfigurationError: a peer is unknown.
    """

    def __init__(
        self,
        start: Callable[[], RapidEngine],
        child: Sequence[str],
        told: dict[str, Any],
        folder: Path,
        *,
        speculation: SpeculationConfig,
        context_tokens: int,
        new_tokens: int,
        on_progress: OnProgress,
        peers: Sequence[str] = (),
    ) -> None:
        require_known(peers)
        self._start = start
        self._child = child
        self._told = told
        self._folder = folder
        self._speculation = {"rapid": speculation, "target": ALONE}
        self._context_tokens = context_tokens
        self._new_tokens = new_tokens
        self._progress = on_progress
        self._peers = peers

    def run(self, pairs: Sequence[QuestionPair]) -> QuestionResult:
        """Run the benchmark.

        Raises:
            ConfigurationError: this engine's own process fails; the message has its last line.
        """
        with self._start() as engine:
            result = QuestionResult(engine.target.name, engine.drafter.name, describe_machine(engine.target.device))
            documents = [self._prepared(engine, pair) for pair in pairs]
        result.lacks = {name: dict(peer_class(name).lacks) for name in self._peers}
        methods = [*OWN_METHODS, *self._peers]
        steps = len(documents) * len(RUNS) * len(methods)
        self._progress("benchmark", 0, steps)
        for number, document in enumerate(documents):
            for done, (run, method) in enumerate(((run, method) for run in RUNS for method in methods), 1):
                self._measure(result, method, run, document)
                self._progress("benchmark", number * len(RUNS) * len(methods) + done, steps)
        return result

    def _prepared(self, engine: RapidEngine, pair: QuestionPair) -> dict[str, Any]:
        """Return what every process is told about a document."""
        room = room_beside(engine, self._new_tokens, self._context_tokens)
        questions = [pair.first, pair.second]
        document = document_start(engine, pair.document, questions, room)
        prompts = [_target_ids(engine, Prompt.from_context(document, question)) for question in questions]
        # As `RapidEngine.read`: what the prompts of any two questions begin with.
        marks = [_target_ids(engine, Prompt.from_context(document, mark)) for mark in ("a", "1")]
        return {
            "document": document,
            "questions": questions,
            "prompts": prompts,
            "shared": list(_beginning(*marks)),
            "warm_up": prompts[0][-len(prompts[0]) // 8 :][::-1],  # shares no beginning with the prompts
            "eos": sorted(engine.vocabulary.eos_token_ids),
            "new_tokens": self._new_tokens,
            "context_tokens": max(map(len, prompts)) + self._new_tokens,
            "threads": torch.get_num_threads(),
            "device": engine.target.device.type,
            "dtype": str(getattr(engine.target, "dtype", torch.float32)).removeprefix("torch."),
        }

    def _measure(self, result: QuestionResult, method: str, run: str, document: dict[str, Any]) -> None:
        """Run one process of a method, unless it has failed before or lacks all of the run's stages."""
        if method in result.skipped or all(stage in result.lacks.get(method, ()) for stage in RUNS[run]):
            return
        keeps = run in ("ahead", "restart") and "restart" not in result.lacks.get(method, ())
        files = self._folder / method if keeps else None
        if run == "restart" and files is not None:
            _drop_from_page_cache(files)
        elif files is not None:
            files.mkdir(exist_ok=True)
        speculation = self._speculation.get(method, ALONE).model_dump_json()
        told = {**self._told, **document, "method": method, "run": run, "speculation": speculation}
        try:
            said = run_measured(self._child, told | {"files": None if files is None else str(files)}, self._folder)
        except ConfigurationError as error:
            if method not in PEERS:
                raise
            result.skipped[method] = str(error)
            return
        result.settings[method] = said["settings"]
        for stage, wait in said["waits"].items():
            result.add(method, stage, Wait(**wait))


def _target_ids(engine: RapidEngine, prompt: Prompt) -> list[int]:
    """Return the target's prompt as token ids."""
    sampling = SamplingParams(max_new_tokens=1)
    return engine.stream(prompt, sampling=sampling, speculation=ALONE).prepared.target_ids


def _beginning(one: Sequence[int], other: Sequence[int]) -> Iterator[int]:
    """Yield the tokens that both begin with."""
    for a, b in zip(one, other, strict=False):
        if a != b:
            return
        yield a


def _drop_from_page_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(OSError, AttributeError), path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
