"""Measure all proposers on the same questions in one run, apart for each kind of question.

Every proposer answers under the law of the request. "none" is the same law without proposals, which the others are
compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from rapid_integrations.benchmarks.interrupted import kept_if_interrupted
from rapid_integrations.benchmarks.prompts import prompt_of_length, room_beside
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.evaluation.timing import describe_machine, spread
from rapid_integrations.models.causal_lm import HasParts
from rapid_integrations.outputs import Completion, DecodeStats
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import Prompt
from rapid_integrations.proposers import proposer_class

BASELINE: Final = "none"
CHEAP: Final = ("none", "drafter", "prompt_lookup", "retrieval_tree", "hybrid", "tree_hybrid", "adaptive", "auto")
"""Proposers that need nothing but a drafter, which is the target itself if no other is given."""
SELF_DRAFTING: Final = ("skipped_layers", "magicdec", "triforce")
"""Proposers that need a target whose layers may be left out."""
_WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class ProposerRun:
    """One answer with one proposer."""

    proposer: str
    question: int
    kind: str
    token_ids: tuple[int, ...]
    stats: DecodeStats


@dataclass
class ProposersResult:
    """Every run of the benchmark, with the machine."""

    target: str
    drafter: str
    machine: dict[str, str | int]
    prompt_tokens: list[int] = field(default_factory=list)
    runs: list[ProposerRun] = field(default_factory=list)
    interrupted: bool = False

    @property
    def kinds(self) -> list[str]:
        """Kinds of the questions, in the order in which they were asked."""
        return list(dict.fromkeys(run.kind for run in self.runs))

    @property
    def proposers(self) -> list[str]:
        """Names of the proposers, the baseline first."""
        return sorted(dict.fromkeys(run.proposer for run in self.runs), key=lambda name: name != BASELINE)

    def ratios(self, proposer: str, kind: str) -> list[float]:
        """Return the ratio of tokens/s with a proposer and without, one per question (medians of repeats)."""
        mine, theirs = self._speed_by_question(proposer, kind), self._speed_by_question(BASELINE, kind)
        return [speed / theirs[question] for question, speed in mine.items() if question in theirs]

    def same(self, proposer: str, kind: str) -> int:
        """Return how many answers have the tokens of the baseline's answer to the question."""
        expected = {run.question: run.token_ids for run in self._of(BASELINE, kind)}
        return sum(run.token_ids == expected[run.question] for run in self._of(proposer, kind))

    def summary(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return {
            "benchmark": "proposers",
            "kinds": {
                kind: {proposer: self._summary(proposer, kind) for proposer in self.proposers} for kind in self.kinds
            },
            "law": self.runs[0].stats.law,
            "prompt_tokens": spread(self.prompt_tokens),
            "questions": len(self.prompt_tokens),
            "interrupted": self.interrupted,
            "target": self.target,
            "drafter": self.drafter,
            "machine": self.machine,
        }

    def _summary(self, proposer: str, kind: str) -> dict[str, Any]:
        runs, ratios = self._of(proposer, kind), self.ratios(proposer, kind)
        stats = [run.stats for run in runs]
        speeds = [each.decode_tps for each in stats if each.decode_tps is not None]
        rounds, drafted = sum(each.rounds for each in stats), sum(each.drafted_tokens for each in stats)
        return {
            "used": "/".join(sorted({each.proposer for each in stats})),
            "tokens_per_pass": round(sum(each.tokens for each in stats) / rounds, 3) if rounds else None,
            "proposal_ms": float(f"{1e3 * sum(s.propose_s for s in stats) / rounds:.4g}") if rounds else None,
            "decode_tps": spread(speeds) if speeds else None,
            "ratio": spread(ratios) if ratios else None,
            "acceptance": round(sum(each.accepted_tokens for each in stats) / drafted, 3) if drafted else None,
            "same": self.same(proposer, kind),
            "answers": len(runs),
        }

    def _of(self, proposer: str, kind: str) -> list[ProposerRun]:
        return [run for run in self.runs if run.proposer == proposer and run.kind == kind]

    def _speed_by_question(self, proposer: str, kind: str) -> dict[int, float]:
        speeds: dict[int, list[float]] = {}
        for run in self._of(proposer, kind):
            if run.stats.decode_tps:
                speeds.setdefault(run.question, []).append(run.stats.decode_tps)
        return {question: median(values) for question, values in speeds.items()}


class ProposersBench:
    """Answers every question with every proposer.

    Args:
        engine: its settings apply to all answers.
        speculation: the settings of all answers, apart from the proposer.
        context_tokens: maximum length of the target's prompt, which is cut at the document's end.
        new_tokens: maximum length of an answer.
        repeats: runs of each question and proposer.
        on_progress: is called with ("benchmark", done, total).
        proposers: registered names; "none" is added. None takes all that the request can use.
        temperature: of all answers; 0 decodes greedily.

    Raises:
        ConfigurationError: a proposer is unknown, or the law does not allow other proposers than its own.
    """

    def __init__(
        self,
        engine: RapidEngine,
        *,
        speculation: SpeculationConfig,
        context_tokens: int,
        new_tokens: int,
        repeats: int,
        on_progress: OnProgress,
        proposers: Sequence[str] | None = None,
        temperature: float = 0.0,
    ) -> None:
        if speculation.law == "paper":
            raise ConfigurationError(
                "law='paper' allows the proposer 'drafter' only, so there is nothing to compare. Use law='augmented' "
                "or law='target'"
            )
        self._engine = engine
        self._speculation = speculation
        self._context_tokens = room_beside(engine, new_tokens, context_tokens)
        self._new_tokens = new_tokens
        self._repeats = repeats
        self._progress = on_progress
        self._names = usable_proposers(engine, speculation) if proposers is None else [*proposers]
        if BASELINE not in self._names:
            self._names.insert(0, BASELINE)
        for name in self._names:
            if name != "auto":
                proposer_class(name)  # refuses an unknown name
        self._temperature = temperature

    def run(self, questions: Sequence[Question]) -> ProposersResult:
        """Run the benchmark. Each proposer first answers the first question in a few tokens, as a warm-up.

        Ctrl-C ends it with the questions that every proposer has answered.
        """
        engine = self._engine
        result = ProposersResult(engine.target.name, engine.drafter.name, describe_machine(engine.target.device))
        prompts = [prompt_of_length(engine, question, self._context_tokens) for question in questions]
        steps, done = len(self._names) * (1 + len(prompts) * self._repeats), 0
        self._progress("benchmark", done, steps)
        for name in self._names:
            self._answer(name, prompts[0], _WARM_UP_TOKENS)
            self._progress("benchmark", done := done + 1, steps)
        order = list(self._names)
        with kept_if_interrupted(result):
            for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
                result.prompt_tokens.append(engine.count_tokens(prompt))
                for _ in range(self._repeats):
                    for name in order:
                        answer = self._answer(name, prompt, self._new_tokens)
                        kind = question.kind or "any"
                        result.runs.append(ProposerRun(name, number, kind, tuple(answer.token_ids), answer.stats))
                        self._progress("benchmark", done := done + 1, steps)
                    order.reverse()  # a steady drift of the machine then favours no proposer
        return result

    def _answer(self, name: str, prompt: Prompt, tokens: int) -> Completion:
        self._engine.clear_texts()  # a proposer would copy the answer that another one gave
        return self._engine.generate(
            prompt,
            # Nor may a datastore keep the answer for the next proposer.
            speculation=self._speculation.model_copy(update={"proposer": name, "datastore_grows": False}),
            sampling=SamplingParams(max_new_tokens=tokens, temperature=self._temperature),
        )


def usable_proposers(engine: RapidEngine, speculation: SpeculationConfig) -> list[str]:
    """Return the names of the package's proposers that a request can use with these models and settings."""
    names = list(CHEAP)
    if isinstance(engine.target, HasParts) and engine.target.has_parts:
        names[-1:-1] = SELF_DRAFTING
    if speculation.datastore is not None:
        names.insert(-1, "datastore")
    if engine.draft_lm is not None:
        names.insert(-1, "draft_lm")
    if engine.draft_head is not None:
        names[-1:-1] = ["draft_head", "draft_head_tree"]
    return names
