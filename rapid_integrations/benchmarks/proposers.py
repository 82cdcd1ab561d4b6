"""Measure every proposer on the same questions in one run, apart by the kind of answer that they ask for.

`target` is the target alone. `none` follows the law of the proposers, which may be another than the target's. All
others propose. A round of each answer reads the draft in one pass of the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from rapid_integrations.benchmarks.decode import ALONE
from rapid_integrations.benchmarks.prompts import prompt_of_length
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.evaluation.timing import describe_machine, spread
from rapid_integrations.outputs import Completion
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import Prompt
from rapid_integrations.proposers import PROPOSERS

TARGET: Final = "target"
_WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        proposer: its name, or "target".
        question: its number.
        kind: of the question.
        completion: the answer.
    """

    proposer: str
    question: int
    kind: str
    completion: Completion


@dataclass
class ProposersResult:
    """Every answer of a run, with the settings and the machine."""

    target: str
    drafter: str
    law: str
    machine: dict[str, str | int]
    skipped: dict[str, str] = field(default_factory=dict)
    prompt_tokens: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """Kinds of questions, in the order of the questions."""
        return list(dict.fromkeys(each.kind for each in self.answers))

    @property
    def proposers(self) -> list[str]:
        """Names, in the order of the runs."""
        return list(dict.fromkeys(each.proposer for each in self.answers))

    def summary(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return {
            "benchmark": "proposers",
            "kinds": {kind: {name: self._figures(kind, name) for name in self.proposers} for kind in self.kinds},
            "skipped": self.skipped,
            "prompt_tokens": spread(self.prompt_tokens),
            "questions": len(self.prompt_tokens),
            "law": self.law,
            "target": self.target,
            "drafter": self.drafter,
            "machine": self.machine,
        }

    def _figures(self, kind: str, name: str) -> dict[str, Any]:
        mine, base = self._of(kind, name), self._of(kind, TARGET)
        plain = self._of(kind, "none")
        stats = [each.completion.stats for each in mine.values()]
        rounds, drafted = sum(each.rounds for each in stats), sum(each.drafted_tokens for each in stats)
        ratios = [
            each.completion.stats.decode_tps / base[number].completion.stats.decode_tps
            for number, each in mine.items()
            if number in base and base[number].completion.stats.decode_tps
        ]
        return {
            "questions": len(mine),
            "tokens": sum(each.tokens for each in stats),
            "tokens_per_pass": round(sum(each.tokens for each in stats) / rounds, 2) if rounds else None,
            "acceptance": round(sum(each.accepted_tokens for each in stats) / drafted, 3) if drafted else None,
            "proposal_ms": round(1e3 * sum(each.propose_s for each in stats) / rounds, 3) if rounds else None,
            "decode_tps": spread([each.decode_tps for each in stats]),
            "ratio": round(median(ratios), 3) if ratios else None,
            "same": sum(
                number in plain and each.completion.token_ids == plain[number].completion.token_ids
                for number, each in mine.items()
            ),
        }

    def _of(self, kind: str, name: str) -> dict[int, Answer]:
        return {each.question: each for each in self.answers if (each.kind, each.proposer) == (kind, name)}


class ProposersBench:
    """Lets each proposer answer each question, in turn, so that a drift of the machine affects all.

    The engine's prefix cache is emptied before each answer, and with it the answers that proposers copy from.

    Args:
        engine: its settings apply to all.
        speculation: settings of all but "target"; its proposer is replaced.
        proposers: names; none takes all that the engine and the settings can run.
        context_tokens: maximum length of the target's prompt, which is cut at the document's end.
        new_tokens: maximum length of an answer.
        on_progress: is called with ("benchmark", done, total).
    """

    def __init__(
        self,
        engine: RapidEngine,
        *,
        speculation: SpeculationConfig,
        proposers: Sequence[str] = (),
        context_tokens: int,
        new_tokens: int,
        on_progress: OnProgress,
    ) -> None:
        self._engine = engine
        self._speculation = speculation
        self._proposers = proposers
        self._context_tokens = min(context_tokens, engine.target.context_window - new_tokens)
        self._new_tokens = new_tokens
        self._progress = on_progress

    def run(self, questions: Sequence[Question]) -> ProposersResult:
        """Run the benchmark. Each proposer first answers the first question in a few tokens, as a warm-up.

        A proposer that this engine cannot run is left out with the reason, unless it was asked for by name.

        Raises:
            ConfigurationError: a proposer that was asked for is unknown or cannot run here.
        """
        prompts = [prompt_of_length(self._engine, question, self._context_tokens) for question in questions]
        names = list(dict.fromkeys((TARGET, "none", *(self._proposers or PROPOSERS))))
        steps, done = len(names) * (1 + len(prompts)), 0
        self._progress("benchmark", done, steps)
        result = ProposersResult(
            target=self._engine.target.name,
            drafter=self._engine.drafter.name,
            law="",
            machine=describe_machine(self._engine.target.device),
        )
        for name in tuple(names):
            try:
                result.law = self._answer(name, prompts[0], _WARM_UP_TOKENS).stats.law
                done += 1
            except ConfigurationError as error:
                if name in self._proposers or name in (TARGET, "none"):
                    raise
                result.skipped[name] = str(error)
                names.remove(name)
                done += 1 + len(prompts)
            self._progress("benchmark", done, steps)
        for number, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
            result.prompt_tokens.append(self._engine.count_tokens(prompt))
            for name in names:
                completion = self._answer(name, prompt, self._new_tokens)
                result.answers.append(Answer(name, number, question.kind, completion))
                self._progress("benchmark", done := done + 1, steps)
        return result

    def _answer(self, name: str, prompt: Prompt, tokens: int) -> Completion:
        speculation = ALONE if name == TARGET else self._speculation.model_copy(update={"proposer": name})
        sampling = SamplingParams(temperature=0.0, max_new_tokens=tokens)
        # An earlier answer to the same question is a text that proposers copy from: it would be found word for word.
        self._engine.clear_prefix_cache()
        return self._engine.generate(prompt, sampling=sampling, speculation=speculation)
