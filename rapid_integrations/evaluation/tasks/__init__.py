"""Benchmarks, one file each, and the names they are asked for by."""

from __future__ import annotations

from pathlib import Path

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.tasks.base import PlannedTask, Task
from rapid_integrations.evaluation.tasks.dialogue import Dialogue
from rapid_integrations.evaluation.tasks.generated import Facts
from rapid_integrations.evaluation.tasks.infinitebench import InfiniteBench
from rapid_integrations.evaluation.tasks.leval import SUBSETS, LEval
from rapid_integrations.evaluation.tasks.longbench_v2 import LongBenchV2
from rapid_integrations.evaluation.tasks.own import OwnQuestions

TASKS = {
    "own:FILE": "your own questions: JSON lines of question, answer, and document (or --data)",
    "needle": "one fact in a made report of any length",
    "facts": "three facts of a made report per question",
    "longbench-v2": "LongBench v2: multiple choice, by difficulty and length",
    "longbench-v2:cot": "the same with chain of thought",
    "infinitebench:qa": "InfiniteBench En.QA: questions about novels, F1",
    "infinitebench:mc": "InfiniteBench En.MC: multiple choice about novels",
    "infinitebench:sum": "InfiniteBench En.Sum: summaries of novels, ROUGE-Lsum",
    "dialogue": "replies behind a long history of MT-Bench-101's dialogues",
    "leval:NAME": f"L-Eval: {', '.join(SUBSETS)}",
}
"""Name to what it is; `load_task` takes them, each with an optional "@TOKENS" for its documents' length."""

FACTS_PER_QUESTION = 3


def load_task(name: str, data: Path | None = None, *, letters: bool = False, seed: int = 0, documents: int = 8) -> Task:
    """Return the task called `name` (without "@TOKENS").

    Args:
        name: see `TASKS`.
        data: folder or file with the published data, None: from the hub; of your own questions, the document of those
            that name none.
        letters: hold multiple-choice answers to the letters of the options.
        seed: of tasks that are made.
        documents: of tasks that are made.

    Raises:
        ConfigurationError: no such task.
    """
    kind, _, rest = name.partition(":")
    if kind == "own" and rest:
        return OwnQuestions(Path(rest), data)
    if name == "needle":
        return Facts("needle", 1, documents, seed=seed)
    if name == "facts":
        return Facts("facts", FACTS_PER_QUESTION, documents, seed=seed)
    if kind == "leval" and rest:
        return LEval(rest, data, letters)
    if name in ("longbench-v2", "longbench-v2:cot"):
        return LongBenchV2(data, cot=rest == "cot", letters=letters)
    if kind == "infinitebench" and rest:
        return InfiniteBench(rest, data, letters)
    if name == "dialogue":
        return Dialogue(data, documents, seed=seed)
    raise ConfigurationError(f"no task is called {name!r}; there are: {', '.join(TASKS)}")


def plan_task(
    text: str,
    data: Path | None = None,
    *,
    letters: bool = False,
    seed: int = 0,
    documents: int = 8,
    context_tokens: int | None = None,
) -> PlannedTask:
    """Return the task that "name" or "name@TOKENS" means; see `load_task`. `context_tokens` is for one without.

    Raises:
        ConfigurationError: no such task, or a length that is no number.
    """
    name, at, tokens = text.rpartition("@") if "@" in text else (text, "", "")
    if at and (not tokens.isdigit() or int(tokens) < 1):
        raise ConfigurationError(f"{text!r}: what follows @ is the documents' length in tokens, as in facts@8192")
    task = load_task(name, data, letters=letters, seed=seed, documents=documents)
    return PlannedTask(task, task.name + (f"@{tokens}" if at else ""), int(tokens) if at else context_tokens)
