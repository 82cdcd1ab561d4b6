"""Ask several questions about one document, in turn and at once: what is saved, and whether any answer changes.

whole      nothing of the document is cached; it is read, and all questions are answered
decoding   the prompts have been read before and the requests are prepared, so that almost only decoding is left
pace       an answer is running while another request reads a new document
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, Final

from rapid_integrations.benchmarks.decode import ALONE
from rapid_integrations.benchmarks.pace import Pace, measure_pace
from rapid_integrations.benchmarks.pass_watch import PassWatch
from rapid_integrations.benchmarks.prompts import document_start, room_beside
from rapid_integrations.benchmarks.ways_to_ask import DRAINS, WAYS, Answer, Asking, in_threads, in_turn
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError, MissingExtraError, PromptError
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.evaluation.timing import describe_machine
from rapid_integrations.progress import OnProgress

METHODS: Final = ("target", "rapid")
STAGES: Final = ("whole", "decoding")
_SAMPLED = 0.8  # temperature of the seeded samples


@dataclass(frozen=True)
class Timed:
    """All questions, asked once in one way.

    Attributes:
        wall_s: seconds from the first call to the last answer.
        cpu_s: seconds that this process computed meanwhile, all threads together.
        tokens: number of tokens of all answers.
        rows_per_pass: mean number of rows in a decoding pass; None if there was none.
        kv_bytes: most bytes of the engine's KV caches; 0 if they were not watched.
        same: number of answers that are those of the first run in turn.
    """

    wall_s: float
    cpu_s: float
    tokens: int
    rows_per_pass: float | None
    kv_bytes: int
    same: int


@dataclass
class TogetherResult:
    """All runs: `runs[method][stage][way]`, one for each repeat."""

    target: str
    drafter: str
    machine: dict[str, str | int]
    questions: int
    prompt_tokens: int
    runs: dict[str, dict[str, dict[str, list[Timed]]]] = field(default_factory=dict)
    kv_of_one: dict[str, int] = field(default_factory=dict)
    seeded_same: dict[str, int] = field(default_factory=dict)
    pace: dict[str, Pace] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, method: str, stage: str, way: str, timed: Timed) -> None:
        """Store a run."""
        self.runs.setdefault(method, {}).setdefault(stage, {}).setdefault(way, []).append(timed)

    def faster(self, method: str, stage: str, way: str, figure: str = "wall_s") -> float:
        """Return how many times as long the questions take in turn; the median of the repeats' own ratios."""
        ways = self.runs[method][stage]
        pairs = zip(ways["turn"], ways[way], strict=True)
        return float(median(getattr(turn, figure) / getattr(other, figure) for turn, other in pairs))

    def summary(self) -> dict[str, Any]:
        """Return all figures, ready for JSON. Seconds are medians over the repeats."""
        return {
            "benchmark": "together",
            "questions": self.questions,
            "prompt_tokens": self.prompt_tokens,
            "methods": {method: self._summary(method) for method in self.runs},
            "target": self.target,
            "drafter": self.drafter,
            "skipped": self.skipped,
            "machine": self.machine,
        }

    def _summary(self, method: str) -> dict[str, Any]:
        rows: dict[str, Any] = {
            stage: {way: self._row(method, stage, way) for way in ways} for stage, ways in self.runs[method].items()
        }
        pace = {name: _figures(value) for name, value in asdict(self.pace[method]).items()}
        return {
            **rows,
            "kv_bytes_of_one": self.kv_of_one[method],
            "seeded_same": self.seeded_same[method],
            "pace": pace,
        }

    def _row(self, method: str, stage: str, way: str) -> dict[str, Any]:
        runs = self.runs[method][stage][way]
        row: dict[str, Any] = {
            "wall_s": _figures(median(run.wall_s for run in runs)),
            "cpu_s": _figures(median(run.cpu_s for run in runs)),
            "faster": _figures(self.faster(method, stage, way)),
            "less_cpu": _figures(self.faster(method, stage, way, "cpu_s")),
            "tokens": runs[0].tokens,
            "tps": _figures(median(run.tokens / run.wall_s for run in runs)),
            "same": min(run.same for run in runs),
        }
        if (rows := [run.rows_per_pass for run in runs if run.rows_per_pass is not None]) != []:
            row["rows_per_pass"] = _figures(median(rows))
        if kv_bytes := max(run.kv_bytes for run in runs):
            row |= {"kv_bytes": kv_bytes, "kv_of_one": _figures(kv_bytes / self.kv_of_one[method])}
        return row


class TogetherBench:
    """Asks the same questions in turn, by threads, by tasks and by LangChain's `batch`.

    Args:
        engine: has a prefix cache.
        speculation: settings of "rapid".
        context_tokens: maximum length of the target's prompt, which is cut at the document's end.
        new_tokens: maximum length of an answer.
        full_length: every answer has `new_tokens` tokens, so that all of them run until the end.
        repeats: number of runs of each way.
        methods: "target" and "rapid", or one of them.
        ways: names of `WAYS`; "turn" is always measured.
        on_progress: is called with ("benchmark", done, total).

    Raises:
        ConfigurationError: a method or a way is unknown.
    """

    def __init__(
        self,
        engine: RapidEngine,
        *,
        speculation: SpeculationConfig,
        context_tokens: int,
        new_tokens: int,
        full_length: bool = False,
        repeats: int,
        on_progress: OnProgress,
        methods: Sequence[str] = METHODS,
        ways: Sequence[str] = tuple(WAYS),
    ) -> None:
        for kind, names, known in (("method", methods, METHODS), ("way to ask", ways, WAYS)):
            if unknown := [name for name in names if name not in known]:
                raise ConfigurationError(
                    f"no {kind} is called {', '.join(map(repr, unknown))}; there are: {', '.join(known)}"
                )
        self._methods = methods
        self._ways = [way for way in WAYS if way == "turn" or way in ways]
        self._engine = engine
        self._speculation: Mapping[str, SpeculationConfig] = {"target": ALONE, "rapid": speculation}
        self._context_tokens = room_beside(engine, new_tokens, context_tokens)
        self._new_tokens, self._least = new_tokens, new_tokens if full_length else 0
        self._repeats = repeats
        self._progress = on_progress
        self._done = self._steps = 0

    def run(self, questions: Sequence[Question]) -> TogetherResult:
        """Run the benchmark with the questions about the first one's document.

        Raises:
            PromptError: there is only one.
        """
        asked = [each.question for each in questions if each.document == questions[0].document]
        if len(asked) < 2:
            raise PromptError("a single question cannot be asked together with others: give two about one document")
        document = document_start(self._engine, questions[0].document, asked, self._context_tokens)
        engine = self._engine
        askings = [Asking(document, question, self._sampling(), ALONE) for question in asked]
        result = TogetherResult(
            engine.target.name,
            engine.drafter.name,
            describe_machine(engine.target.device),
            len(asked),
            max(engine.count_tokens(asking.prompt) for asking in askings),
        )
        self._done = 0
        stages = sum(1 + (way in DRAINS) for way in self._ways)
        self._steps = len(self._methods) * (1 + self._repeats * stages + 2)
        self._progress("benchmark", 0, self._steps)
        for method in self._methods:
            self._measure(result, method, [replace(each, speculation=self._speculation[method]) for each in askings])
        engine.clear_prefix_cache()
        return result

    def _measure(self, result: TogetherResult, method: str, askings: Sequence[Asking]) -> None:
        self._engine.clear_prefix_cache()
        with PassWatch(self._engine, kv=True).watching() as watch:  # the warm-up, too
            in_turn(self._engine, askings[:1])
        result.kv_of_one[method] = watch.kv_bytes
        self._step()
        alone: list[Answer] = []
        for _ in range(self._repeats):
            for way in self._ways:
                self._run_one_way(result, method, way, askings, alone)
        result.seeded_same[method] = self._seeded_same(askings)
        self._step()
        lines = askings[0].document.splitlines(keepends=True)
        longest = max(zip(alone, askings, strict=True), key=lambda pair: len(pair[0].token_ids or ()))[1]
        other = replace(askings[0], document="".join(reversed(lines)))  # no beginning in common
        result.pace[method] = measure_pace(self._engine, longest, other)
        self._step()

    def _run_one_way(
        self, result: TogetherResult, method: str, way: str, askings: Sequence[Asking], alone: list[Answer]
    ) -> None:
        """Ask in one way with nothing cached, and then with everything cached. Fills `alone` if it is empty."""
        self._engine.clear_prefix_cache()
        try:
            result.add(method, "whole", way, self._timed(lambda: WAYS[way](self._engine, askings), alone, kv=True))
        except MissingExtraError as error:
            result.skipped[way] = str(error)
        self._step()
        if way in DRAINS:
            self._engine.clear_texts()  # a proposer would copy the answers that were just given
            streams = [asking.stream(self._engine) for asking in askings]
            result.add(method, "decoding", way, self._timed(lambda: DRAINS[way](streams), alone, kv=False))
            self._step()

    def _timed(self, ask: Callable[[], list[Answer]], alone: list[Answer], *, kv: bool) -> Timed:
        with PassWatch(self._engine, kv=kv).watching() as watch:
            cpu, wall = time.process_time(), time.perf_counter()
            answers = ask()
            wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        alone += answers[len(alone) :]
        same = sum(answer.equals(expected) for answer, expected in zip(answers, alone, strict=True))
        # LangChain gives texts. If they are the same, so are the tokens.
        tokens = sum(len(each.token_ids or ()) for each in (answers if answers[0].token_ids is not None else alone))
        return Timed(wall_s, cpu_s, tokens, watch.rows_per_pass, watch.kv_bytes, same)

    def _seeded_same(self, askings: Sequence[Asking]) -> int:
        """Return how many seeded samples are the same in turn and at once."""
        sampled = [
            replace(each, sampling=self._sampling(temperature=_SAMPLED, seed=seed)) for seed, each in enumerate(askings)
        ]
        pairs = zip(in_turn(self._engine, sampled), in_threads(self._engine, sampled), strict=True)
        return sum(alone.equals(together) for alone, together in pairs)

    def _sampling(self, **settings: Any) -> SamplingParams:
        return SamplingParams(max_new_tokens=self._new_tokens, min_new_tokens=self._least, **settings)

    def _step(self) -> None:
        self._done += 1
        self._progress("benchmark", self._done, self._steps)


def _figures(value: float) -> float:
    return float(f"{value:.4g}")
