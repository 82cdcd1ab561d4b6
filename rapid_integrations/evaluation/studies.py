"""The paper's studies (arXiv 2502.20330, section 4): their methods and lengths.

    main        every method on every task
    robustness  eta, with the right passages and with those of another document
    lengths     length of the context x length of what is retrieved
    dialogue    a conversation behind a long history
    success     which questions each method alone gets right

A study is a choice of methods and lengths. Its predictions are stored in the same file as all others. Its picture is
drawn if the predictions exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.methods import Method, parse_method
from rapid_integrations.evaluation.predictions import Prediction
from rapid_integrations.evaluation.summary import BASELINE, Summary, well_covered

STUDIES = {
    "main": "every method on every task, with decode speed",
    "robustness": "the gain over lc for each eta, with related and with unrelated passages",
    "lengths": "the gain over lc and the speedup, by context length and retrieval length",
    "dialogue": "quality, acceptance and speed behind a long history",
    "success": "which questions each method alone gets right",
}
ETAS = (0, 5, 10, 20, 40, 50, "auto")
RIGHT = 0.5  # the least score of a right answer, in studies of right and wrong
_COMPARED = ("lc", "rag", "rapid")


@dataclass(frozen=True)
class StudyPlan:
    """What a study runs.

    Attributes:
        methods: the methods.
        lengths: the documents' lengths in tokens; none if the tasks decide.
        timed: whether it compares speeds, so that each question has to be asked alone.
    """

    methods: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    timed: bool = False


def plan_study(
    name: str, *, other_drafter: bool = False, lengths: Sequence[int] = (), retrieved: Sequence[int] = ()
) -> StudyPlan:
    """Return the plan of the study called `name`.

    Args:
        name: a name as in `STUDIES`.
        other_drafter: whether the drafter is another model than the target. Then "rag-target" differs from "rag".
        lengths, retrieved: lengths in tokens, for "lengths".

    Raises:
        ConfigurationError: the study is unknown, or "lengths" has no lengths.
    """
    rag = ("rag", "rag-target") if other_drafter else ("rag",)
    if name == "main":
        return StudyPlan((BASELINE, *rag, "sd", "magicdec", "rapid"), timed=True)
    if name == "robustness":
        variants = (f"rapid:eta={eta}{context}" for context in ("", ",context=unrelated") for eta in ETAS)
        return StudyPlan((BASELINE, *variants), timed=True)
    if name == "lengths":
        if not lengths or not retrieved:
            raise ConfigurationError(
                "the study of lengths needs both: --length 4096 --length 8192 ... (of the context) and "
                "--retrieved 512 --retrieved 1024 ... (of what is retrieved)"
            )
        methods = (BASELINE, *(f"rapid:retrieved={tokens}" for tokens in retrieved))
        return StudyPlan(methods, tuple(lengths), timed=True)
    if name == "dialogue":
        return StudyPlan((BASELINE, *rag, "sd", "rapid"), timed=True)
    if name == "success":
        return StudyPlan(_COMPARED)
    raise ConfigurationError(f"no study is called {name!r}; there are: {', '.join(STUDIES)}")


def eta_of(method: Method) -> float | str | None:
    """Return the eta of a variant of "rapid" that has no other option but unrelated passages, else None."""
    if method.kind != "rapid" or not {"eta"} <= method.options.keys() <= {"eta", "context"}:
        return None
    eta = method.options["eta"]
    return eta if eta in ("auto", "nearest") else float(eta)


def length_of(task: str) -> int | None:
    """Return the documents' length of a task such as "facts@8192", or None if it is the task's own."""
    tokens = task.rpartition("@")[2] if "@" in task else ""
    return int(tokens) if tokens.isdecimal() else None


def summaries(predictions: Sequence[Prediction], seed: int = 0) -> dict[str, Summary]:
    """Return a summary for each study with predictions, over the questions that all its methods answered."""
    names = list(dict.fromkeys(prediction.method for prediction in predictions))
    methods = {name: parse_method(name) for name in names}
    lengths = {length_of(prediction.task) for prediction in predictions} - {None}
    etas = [name for name in names if eta_of(methods[name]) is not None]
    retrieved = [n for n in names if methods[n].kind == "rapid" and methods[n].options.keys() == {"retrieved"}]
    without_options = [p for p in predictions if not methods[p.method].options]
    compared = {p.task for p in without_options if p.method != BASELINE}
    plain = well_covered([p for p in without_options if p.task in compared])
    chosen: dict[str, list[str]] = {
        "main": plain if len(plain) > 1 else [],
        "robustness": [BASELINE, *etas] if len(etas) > 1 else [],
        "lengths": [BASELINE, *retrieved] if retrieved and len(lengths) > 1 else [],
        "success": [*_COMPARED[:-1], "rapid:eta=auto"] if "rapid" not in names else list(_COMPARED),
    }
    found = {}
    for study, wanted in chosen.items():
        if not wanted or not set(wanted) <= set(names):
            continue
        rows = [p for p in predictions if p.method in wanted and (study != "lengths" or length_of(p.task))]
        try:
            found[study] = Summary(rows, methods=wanted, seed=seed)
        except ConfigurationError:
            continue  # begun, but no question has all its answers yet
    dialogues = [p for p in predictions if p.task.startswith("dialogue") and p.method in plain]
    if dialogues and "main" in found:
        found["dialogue"] = Summary(dialogues, methods=found["main"].methods, seed=seed)
    return found


def patterns(summary: Summary) -> dict[tuple[str, ...], int]:
    """Return for each set of methods how many questions exactly these methods get right."""
    counts: dict[tuple[str, ...], int] = {}
    for task in summary.tasks:
        for row in summary.items(task):
            right = tuple(method for method in summary.methods if row[method].score >= RIGHT)
            counts[right] = counts.get(right, 0) + 1
    return counts
