"""Measure a whole `rapid ask`, from the start of the process to its end, by part."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rapid_integrations.benchmarks.figures import figures_table
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.timing import describe_machine
from rapid_integrations.models.placement import device_of
from rapid_integrations.progress import OnProgress, ignore_progress

PARTS = {
    "interpreter": "Python",
    "command_line": "the command line's modules",
    "torch": "torch",
    "package": "the engine's modules",
    "document": "reading the document",
    "models": "loading the models",
    "retrieval": "retrieval",
    "target": "target: prefill or cached rows",
    "drafter": "drafter: prefill",
    "first_round": "the first decoding round",
    "answer": "the rest of the answer",
    "close": "writing the cache, closing",
    "exit": "the end of the process",
}
"""The parts of a run in their order, with their titles."""

CASES = {
    "unchecked": "first start",
    "first": "first question",
    "again": "asked again",
}
"""The runs with their titles: without a remembered check, of a document that is not cached, and of one that is."""

_SWITCH = "RAPID_QUICK_START"


@dataclass(frozen=True)
class Start:
    """One run of the command.

    Attributes:
        parts: seconds of each of `PARTS`.
        cpu_s: seconds of processor time, of all threads.
        prompt_tokens, cached_tokens: tokens of the target's prompt, and how many of them were cached.
    """

    parts: dict[str, float]
    cpu_s: float
    prompt_tokens: int
    cached_tokens: int

    @property
    def wall_s(self) -> float:
        """Seconds from the start of the process to its end."""
        return sum(self.parts.values())

    @property
    def first_token_s(self) -> float:
        """Seconds from the start of the process to the first tokens."""
        last = list(PARTS).index("first_round")
        return sum(self.parts[part] for part in list(PARTS)[: last + 1])


@dataclass(frozen=True)
class StartResult:
    """The runs of each case of `CASES`, and the machine."""

    machine: dict[str, str | int]
    starts: dict[str, list[Start]]

    def summary(self) -> dict[str, Any]:
        """Return the medians of each case as JSON."""
        return {
            "benchmark": "start",
            "machine": self.machine,
            "cases": {
                case: {
                    "runs": len(runs),
                    "wall_s": _median([run.wall_s for run in runs]),
                    "first_token_s": _median([run.first_token_s for run in runs]),
                    "cpu_s": _median([run.cpu_s for run in runs]),
                    "prompt_tokens": runs[0].prompt_tokens,
                    "cached_tokens": runs[0].cached_tokens,
                    "parts": {part: _median([run.parts[part] for run in runs]) for part in PARTS},
                }
                for case, runs in self.starts.items()
            },
        }


def measure_starts(
    child: Sequence[str],
    asked: dict[str, Any],
    questions: Sequence[str],
    scratch: Path,
    runs: int,
    on_progress: OnProgress = ignore_progress,
) -> StartResult:
    """Run the command of each case in a process of its own.

    Args:
        child: the command of a process that reads `asked` from its last argument (see `cli.start_child`).
        asked: what it is told, as JSON, without "question" and "prefix_cache_dir".
        questions: two questions. The second is asked about the cached document.
        scratch: a folder for the cached documents.
        runs: how often the cached document is asked about.
        on_progress: called with ("measure", done, total).

    Raises:
        ConfigurationError: a process fails; the message has its last line.
    """
    total = runs + 3

    def ask(done: int, question: str | None, folder: str, **environment: str) -> Start:
        on_progress("measure", done, total)
        told = {**asked, "question": question, "prefix_cache_dir": str(scratch / folder)}
        return _run([*child, json.dumps(told)], os.environ | environment)

    machine = describe_machine(device_of(asked["engine"].get("device", "auto")))
    ask(0, None, "unused")  # fetches the models, compiles kernels, and remembers that the models were checked
    unchecked = ask(1, questions[0], "unchecked", **{_SWITCH: "0"})
    first = ask(2, questions[0], "documents")
    again = [ask(3 + run, questions[1], "documents") for run in range(runs)]
    on_progress("measure", total, total)
    return StartResult(machine, {"unchecked": [unchecked], "first": [first], "again": again})


def start_table(result: StartResult) -> Table:
    """Return the seconds of each part for each case."""
    cases = result.summary()["cases"]
    prompt = cases["again"]["prompt_tokens"]
    share = cases["again"]["wall_s"] / cases["first"]["wall_s"]
    table = figures_table(
        f"From the start of the process, {prompt:,} tokens of prompt",
        ["part"],
        list(CASES.values()),
        [
            "Seconds of wall time, medians. first start: the model is checked through transformers; first question:",
            "the model was checked before, the document is new; asked again: another question in a new process.",
            f"Asked again takes {share:.0%} of the first question.",
        ],
    )
    for part, title in PARTS.items():
        table.add_row(title, *(f"{cases[case]['parts'][part]:.2f}" for case in CASES))
    for key, title in (("first_token_s", "to the first token"), ("wall_s", "in all"), ("cpu_s", "processor time")):
        table.add_row(title, *(f"{cases[case][key]:.2f}" for case in CASES))
    return table


def _run(command: Sequence[str], environment: dict[str, str]) -> Start:
    begun = time.perf_counter()  # the clock is the same in all processes
    before = os.times()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    ended, after = time.perf_counter(), os.times()
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigurationError(f"the measured process failed with exit status {done.returncode}: {said}")
    said = json.loads(lines[-1])
    parts = dict.fromkeys(PARTS, 0.0)
    for part, at in said["ended"].items():
        parts[part], begun = at - begun, at
    parts["exit"] = ended - begun
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Start(parts, cpu_s, said["prompt_tokens"], said["cached_tokens"])


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 4)
