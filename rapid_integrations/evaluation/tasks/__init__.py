"""Tasks of `rapid eval`. Each benchmark is one file, registered by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.tasks.base import PlannedTask, Task
from rapid_integrations.evaluation.tasks.dialogue import Dialogue
from rapid_integrations.evaluation.tasks.evidence import EvidenceQuestions
from rapid_integrations.evaluation.tasks.generated import Facts
from rapid_integrations.evaluation.tasks.infinitebench import InfiniteBench
from rapid_integrations.evaluation.tasks.leval import SUBSETS, LEval
from rapid_integrations.evaluation.tasks.longbench_v2 import LongBenchV2
from rapid_integrations.evaluation.tasks.own import OwnQuestions

TASKS: Final = {
    "own:FILE": "your own questions: JSON lines of question, answer, and document (or --data)",
    "needle": "one fact in a generated report of any length",
    "facts": "three facts of a generated report per question",
    "longbench-v2": "LongBench v2: multiple choice, by difficulty and length",
    "longbench-v2:cot": "the same with chain of thought",
    "infinitebench:qa": "InfiniteBench En.QA: questions about novels, F1",
    "infinitebench:mc": "InfiniteBench En.MC: multiple choice about novels",
    "infinitebench:sum": "InfiniteBench En.Sum: summaries of novels, ROUGE-Lsum",
    "dialogue": "replies behind a long history of MT-Bench-101's dialogues",
    "evidence:NAME": "questions about real documents with annotated evidence: NAME.jsonl of --data; F1 or accuracy",
    "leval:NAME": f"L-Eval: {', '.join(SUBSETS)}",
}
"""Name to description. `load_task` takes the names, each with an optional "@TOKENS" for the documents' length."""

FACTS_PER_QUESTION = 3


@dataclass(frozen=True)
class TaskOptions:
    """What a task can be made from.

    Attributes:
        variant: what follows the colon in the task's name, such as a subset. "" if there is no colon.
        data: folder or file with the published data. None fetches it from the hub.
        letters: whether multiple-choice answers are constrained to the letters of the options.
        seed: seed of generated tasks.
        documents: number of documents of generated tasks.
    """

    variant: str
    data: Path | None
    letters: bool
    seed: int
    documents: int


MakeTask: TypeAlias = Callable[[TaskOptions], Task | None]
"""Makes a task. It returns None if the task has no such variant."""

_MAKERS: Final[dict[str, MakeTask]] = {
    "own": lambda given: OwnQuestions(Path(given.variant), given.data) if given.variant else None,
    "needle": lambda given: None if given.variant else Facts("needle", 1, given.documents, seed=given.seed),
    "facts": lambda given: (
        None if given.variant else Facts("facts", FACTS_PER_QUESTION, given.documents, seed=given.seed)
    ),
    "evidence": lambda given: EvidenceQuestions(given.variant, given.data, given.letters) if given.variant else None,
    "leval": lambda given: LEval(given.variant, given.data, given.letters) if given.variant else None,
    "longbench-v2": lambda given: (
        LongBenchV2(given.data, cot=given.variant == "cot", letters=given.letters)
        if given.variant in ("", "cot")
        else None
    ),
    "infinitebench": lambda given: InfiniteBench(given.variant, given.data, given.letters) if given.variant else None,
    "dialogue": lambda given: None if given.variant else Dialogue(given.data, given.documents, seed=given.seed),
}


def register_task(name: str, description: str, make: MakeTask) -> None:
    """Make a task available to `load_task` and `rapid eval tasks`.

    Args:
        name: as `rapid eval tasks` shows it, such as "needle" or "leval:NAME". The part before the colon is the key.
        description: what the task asks and how it is scored, in a few words.
        make: makes the task.
    """
    TASKS[name] = description
    _MAKERS[name.partition(":")[0]] = make


def load_task(name: str, data: Path | None = None, *, letters: bool = False, seed: int = 0, documents: int = 8) -> Task:
    """Return the task called `name` (without "@TOKENS").

    Args:
        name: a name as in `TASKS`.
        data: folder or file with the published data. None fetches it from the hub. For your own questions, it is the
            document of the questions that name none.
        letters: constrain multiple-choice answers to the letters of the options.
        seed: seed of generated tasks.
        documents: number of documents of generated tasks.

    Raises:
        ConfigurationError: no task has this name.
    """
    kind, _, variant = name.partition(":")
    make = _MAKERS.get(kind)
    task = None if make is None else make(TaskOptions(variant, data, letters, seed, documents))
    if task is None:
        raise ConfigurationError(f"no task is called {name!r}; there are: {', '.join(TASKS)}")
    return task


def plan_task(
    text: str,
    data: Path | None = None,
    *,
    letters: bool = False,
    seed: int = 0,
    documents: int = 8,
    context_tokens: int | None = None,
) -> PlannedTask:
    """Return the task that "name" or "name@TOKENS" selects. See `load_task`.

    `context_tokens` is the documents' length if the name gives none.

    Raises:
        ConfigurationError: no task has this name, or the length is not a number.
    """
    name, at, tokens = text.rpartition("@") if "@" in text else (text, "", "")
    if at and not tokens.isdecimal() and text.startswith("own:"):  # it belongs to the file's name
        name, at = text, ""
    if at and (not tokens.isdecimal() or int(tokens) < 1):
        raise ConfigurationError(f"{text!r}: what follows @ is the documents' length in tokens, as in facts@8192")
    task = load_task(name, data, letters=letters, seed=seed, documents=documents)
    return PlannedTask(task, task.name + (f"@{tokens}" if at else ""), int(tokens) if at else context_tokens)
