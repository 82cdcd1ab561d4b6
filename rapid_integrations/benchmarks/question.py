"""Measure a document's first question, its second one, and the second one after a restart, end to end.

first     nothing of the document is cached
ahead     a first question to an engine that has read the document ahead (`RapidEngine.read`)
second    another question about it, to the same engine
restart   the second question to a new engine, which finds the files of the one that has read ahead
          (`prefix_cache_dir`)

Every answer of this engine comes from a new engine that has answered a question about another text. So loading and
warming up are not part of the figures. Before a restart is measured, the files are dropped from the operating system's
page cache, if the system allows it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from rapid_integrations.benchmarks.decode import ALONE
from rapid_integrations.benchmarks.first_token import Answered, answer
from rapid_integrations.benchmarks.peers import PeerSource, open_peers, require_known
from rapid_integrations.benchmarks.prompts import document_start
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.evaluation.questions import QuestionPair
from rapid_integrations.evaluation.timing import describe_machine, spread
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import Prompt

OWN_METHODS: Final = ("rapid", "target")
STAGES: Final = ("first", "ahead", "second", "restart")
PARTS: Final = ("retrieval_s", "target_s", "drafter_s", "first_round_s")
_FIGURES = ("first_token_s", *PARTS, "total_s")
_WARM_UP = Prompt.from_context("\n".join(f"Line {i} says {i * i}." for i in range(120)), "Which line says 100?")


@dataclass
class QuestionResult:
    """All answers of a benchmark: `answers[method][stage]`, one per pair of questions."""

    target: str
    drafter: str
    machine: dict[str, str | int]
    answers: dict[str, dict[str, list[Answered]]] = field(default_factory=dict)
    settings: dict[str, dict[str, str | float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, method: str, stage: str, answered: Answered) -> None:
        """Store an answer."""
        self.answers.setdefault(method, {}).setdefault(stage, []).append(answered)

    def seconds(self, method: str, stage: str, figure: str) -> list[float]:
        """Return one attribute of `Answered` for each pair."""
        return [getattr(answered, figure) for answered in self.answers[method].get(stage, ())]

    def percent(self, method: str, stage: str, figure: str) -> list[float]:
        """Return a later stage's seconds in percent of the first question's, one per pair."""
        pairs = zip(self.seconds(method, stage, figure), self.seconds(method, "first", figure), strict=False)
        return [100 * later / first for later, first in pairs if first > 0]

    def summary(self) -> dict[str, Any]:
        """Return all figures, ready for JSON. Seconds are medians over the pairs."""
        any_method = next(iter(self.answers.values()))
        return {
            "benchmark": "question",
            "methods": {method: self._summary(method) for method in self.answers},
            "pairs": len(any_method["first"]),
            "prompt_tokens": spread([answered.prompt_tokens for answered in any_method["first"]]),
            "target": self.target,
            "drafter": self.drafter,
            "settings": self.settings,
            "skipped": self.skipped,
            "machine": self.machine,
        }

    def _summary(self, method: str) -> dict[str, Any]:
        stages: dict[str, Any] = {}
        for stage, answers in self.answers[method].items():
            row: dict[str, Any] = {
                figure: float(f"{median(self.seconds(method, stage, figure)):.4g}") for figure in _FIGURES
            }
            row["cached_share"] = round(median(a.cached_tokens / a.prompt_tokens for a in answers), 4)
            row["tokens"] = sum(a.tokens for a in answers)
            if stage != "first":
                row["percent_of_first"] = {
                    figure: spread(percent)
                    for figure in ("target_s", "first_token_s", "total_s")
                    if (percent := self.percent(method, stage, figure))
                }
            stages[stage] = row
        return stages


class QuestionBench:
    """Asks pairs of questions.

    Args:
        start: returns a new engine over freshly loaded models, with a prefix cache in memory and, if it gets a folder,
            on disk. The benchmark closes each engine.
        folder: an empty folder for the files of restarts. It needs room for three times the KV caches of all documents.
        speculation: settings of "rapid".
        context_tokens: maximum length of the target's prompt, which is cut at the document's end.
        new_tokens: maximum length of an answer.
        source: returns what peers are made from, given the target's device; None for no peers.
        peers: names as in `benchmarks.peers`.
        on_progress: is called with ("benchmark", done, total).

    Raises:
        ConfigurationError: a peer is unknown.
    """

    def __init__(
        self,
        start: Callable[[Path | None], RapidEngine],
        folder: Path,
        *,
        speculation: SpeculationConfig,
        context_tokens: int,
        new_tokens: int,
        on_progress: OnProgress,
        source: Callable[[torch.device], PeerSource] | None = None,
        peers: Sequence[str] = (),
    ) -> None:
        require_known(peers)
        self._start = start
        self._folder = folder
        self._speculation = {"rapid": speculation, "target": ALONE}
        self._context_tokens = context_tokens
        self._new_tokens = new_tokens
        self._progress = on_progress
        self._source = source
        self._peers = peers
        self._done = self._steps = 0

    def run(self, pairs: Sequence[QuestionPair]) -> QuestionResult:
        """Run the benchmark."""
        with self._start(None) as engine:
            documents = [self._document(engine, pair) for pair in pairs]
            result = QuestionResult(engine.target.name, engine.drafter.name, describe_machine(engine.target.device))
            prompts = [
                (Prompt.from_context(document, pair.first), Prompt.from_context(document, pair.second))
                for document, pair in zip(documents, pairs, strict=True)
            ]
            ids = [[_target_ids(engine, prompt) for prompt in both] for both in prompts]
            eos, device = sorted(engine.vocabulary.eos_token_ids), engine.target.device
        self._done, self._steps = 0, len(prompts) * (2 * len(OWN_METHODS) + len(self._peers)) + 1
        self._step()
        for first, second in prompts:
            for method in OWN_METHODS:
                self._ask_twice(result, method, first, second)
        self._read_ahead(result, list(zip(documents, prompts, strict=True)))
        for method in OWN_METHODS:
            kept = shutil.copytree(self._folder / "written", self._folder / method)
            for _, second in prompts:
                self._ask_after_restart(result, method, second, kept)
        self._ask_peers(result, device, ids, eos)
        return result

    def _document(self, engine: RapidEngine, pair: QuestionPair) -> str:
        room = min(self._context_tokens, engine.target.context_window - self._new_tokens)
        return document_start(engine, pair.document, [pair.first, pair.second], room)

    def _ask_twice(self, result: QuestionResult, method: str, first: Prompt, second: Prompt) -> None:
        with self._started(None) as engine:
            for stage, prompt in (("first", first), ("second", second)):
                result.add(method, stage, self._ask(engine, method, prompt))
        self._step()

    def _read_ahead(self, result: QuestionResult, pairs: Sequence[tuple[str, tuple[Prompt, Prompt]]]) -> None:
        """Let an engine read the documents and write its files. Then each method asks a question of its own."""
        with self._started(self._folder / "written") as engine:
            for document, asked in pairs:
                engine.read(document)
                for method, prompt in zip(OWN_METHODS, asked, strict=True):
                    result.add(method, "ahead", self._ask(engine, method, prompt))

    def _ask_after_restart(self, result: QuestionResult, method: str, second: Prompt, kept: Path) -> None:
        with self._started(kept) as engine:
            _drop_from_page_cache(kept)
            result.add(method, "restart", self._ask(engine, method, second))
        self._step()

    def _ask_peers(
        self, result: QuestionResult, device: torch.device, ids: Sequence[Sequence[list[int]]], eos: list[int]
    ) -> None:
        if self._source is None or not self._peers:
            return
        source = self._source(device)
        source.warm_up_ids = ids[0][0][::-1]  # shares no beginning with the prompts, so that nothing of them is cached
        for both in ids:
            peers, result.skipped = open_peers(self._peers, source)  # opened again: some peers have a prefix cache, too
            for name, peer in peers.items():
                result.settings[name] = peer.settings
                peer.generate(source.warm_up_ids, 2, eos)
                for stage, prompt_ids in zip(("first", "second"), both, strict=True):
                    timed = peer.generate(prompt_ids, self._new_tokens, eos)
                    first, total = timed.first_token_s, timed.first_token_s + timed.decode_s
                    answered = Answered(first, 0.0, first, 0.0, 0.0, total, len(timed.token_ids), len(prompt_ids), 0)
                    result.add(name, stage, answered)
                self._step()

    def _started(self, folder: Path | None) -> RapidEngine:
        """Return a new, warm engine: its embedder is loaded, and its models have run."""
        engine = self._start(folder)
        engine.generate(_WARM_UP, sampling=SamplingParams(max_new_tokens=2), speculation=self._speculation["rapid"])
        engine.clear_prefix_cache()
        return engine

    def _ask(self, engine: RapidEngine, method: str, prompt: Prompt) -> Answered:
        return answer(engine, prompt, self._speculation[method], self._new_tokens)[0]

    def _step(self) -> None:
        self._progress("benchmark", self._done, self._steps)
        self._done += 1


def _target_ids(engine: RapidEngine, prompt: Prompt) -> list[int]:
    """Return the target's prompt as token ids."""
    sampling = SamplingParams(max_new_tokens=1)
    return engine.stream(prompt, sampling=sampling, speculation=ALONE).prepared.target_ids


def _drop_from_page_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(OSError, AttributeError), path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
