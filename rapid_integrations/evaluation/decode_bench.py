"""Decode speed of RAPID beside what it competes with: the same model, prompts, machine and run.

transformers  `generate` with its own cache and attention, in its best dtype here
target        the target alone, on this engine
drafter       the drafter alone, reading what was retrieved (plain RAG)
sd            naive speculative decoding: the drafter reads the whole context, law "target"
rapid         the engine as configured
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import torch

from rapid_integrations.config import PAPER_DRAFT_LENGTH, CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.baselines import TimedTokens, transformers_generate
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.evaluation.timing import describe_machine, repeated_ngrams, spread
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.outputs import Completion
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import Prompt

METHODS = ("transformers", "target", "drafter", "sd", "rapid")
_ALONE = SpeculationConfig(law="target", proposer="none")
_WHOLE_CONTEXT = CompressionConfig(ratio=1.0)
_WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class Run:
    """One answer by one method. `decode_tps` is in tokens per second; `completion` is None for transformers."""

    method: str
    question: int
    decode_tps: float
    tokens: int
    repeated_4grams: float
    completion: Completion | None = None


@dataclass
class DecodeResult:
    """Every run of a benchmark, and what was measured on what."""

    target: str
    drafter: str
    machine: dict[str, str | int]
    dtypes: dict[str, str]
    prompt_tokens: list[int] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def speeds(self, method: str) -> list[float]:
        """Return a method's decode tokens/s, one per run."""
        return [run.decode_tps for run in self.runs if run.method == method]

    def ratios(self, method: str, over: str) -> list[float]:
        """Return a method's speed over another's, one per question (medians over its repeats)."""
        questions = sorted({run.question for run in self.runs})
        return [self._median(method, q) / self._median(over, q) for q in questions]

    def _median(self, method: str, question: int) -> float:
        return median(run.decode_tps for run in self.runs if (run.method, run.question) == (method, question))

    def allowed_tps(self) -> float | None:
        """Return the best tokens/s that RAPID's own acceptance and step costs allow, at the best draft length.

        With acceptance a per token, a round of K drafts gives (1 - a^(K+1)) / (1 - a) tokens and costs K drafts, one
        verify pass of K + 1 tokens and the drafter's other passes, all as measured in this run's RAPID rounds.
        """
        stats = [run.completion.stats for run in self.runs if run.method == "rapid" and run.completion is not None]
        drafted, rounds = sum(s.drafted_tokens for s in stats), sum(s.rounds for s in stats)
        if not drafted:
            return None
        accepted = sum(s.accepted_tokens for s in stats)
        a = min(accepted / max(1, min(drafted, accepted + rounds)), 0.99)
        propose = sum(s.propose_s for s in stats) / drafted
        verify, score = sum(s.verify_s for s in stats) / rounds, sum(s.score_s for s in stats) / rounds
        single = 1 / median(self.speeds("target"))
        per_token = max(0.0, (verify - single) / (drafted / rounds))
        return max((1 - a ** (k + 1)) / (1 - a) / (k * (propose + per_token) + single + score) for k in range(1, 33))

    def summary(self) -> dict[str, Any]:
        """Return everything that people compare, ready for JSON."""
        methods: dict[str, Any] = {}
        for method in METHODS:
            runs = [run for run in self.runs if run.method == method]
            speeds = spread(self.speeds(method))
            methods[method] = {
                "decode_tps": speeds["median"],
                "min": speeds["min"],
                "max": speeds["max"],
                "tokens": sum(run.tokens for run in runs),
                "repeated_4grams": round(mean(run.repeated_4grams for run in runs), 3),
            } | _decoding(runs)
        allowed = self.allowed_tps()
        if allowed is not None:
            methods["rapid"]["allowed_tps"] = float(f"{allowed:.4g}")
        return {
            "methods": methods,
            "ratios": {
                f"{method}/{over}": spread(self.ratios(method, over))
                for method, over in (("target", "transformers"), ("sd", "target"), ("rapid", "target"))
            },
            "prompt_tokens": spread(self.prompt_tokens),
            "questions": len(self.prompt_tokens),
            "target": self.target,
            "drafter": self.drafter,
            "dtypes": self.dtypes,
            "machine": self.machine,
        }


def _decoding(runs: Sequence[Run]) -> dict[str, Any]:
    stats = [run.completion.stats for run in runs if run.completion is not None]
    drafted = sum(s.drafted_tokens for s in stats)
    if not drafted:
        return {}
    return {
        "law": stats[0].law,
        "proposer": stats[0].proposer,
        "acceptance": round(sum(s.accepted_tokens for s in stats) / drafted, 3),
        "tokens_per_round": round(sum(s.tokens for s in stats) / sum(s.rounds for s in stats), 2),
    }


class DecodeBench:
    """Runs every method on every question.

    Args:
        engine: of a transformers target; its settings count for all methods but those that define a method. It must
            not reuse prefixes: each method reads the same prompts, and all but the first would find them read.
        speculation: what "rapid" runs with.
        context_tokens: the target's prompt is cut to this, in the middle of the document's end.
        new_tokens: output at most; answers end earlier at an eos token.
        repeats: runs of each question and method.
        on_progress: called with ("benchmark", done, total).
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
    ) -> None:
        if not isinstance(engine.target, HuggingFaceLM):
            raise ConfigurationError("the benchmark compares with transformers: it needs a transformers target")
        if engine.reuses_prefixes:
            raise ConfigurationError(
                "the benchmark's methods read the same prompts, so an engine that reuses prefixes would falsify their "
                "prefill: build it with prefix_cache_bytes=0 and without prefix_cache_dir"
            )
        self._engine = engine
        self._lm: HuggingFaceLM = engine.target
        self._speculation = speculation
        self._context_tokens = min(context_tokens, engine.target.context_window - new_tokens)
        self._sampling = SamplingParams(max_new_tokens=new_tokens)
        self._repeats = repeats
        self._progress = on_progress

    def run(self, questions: Sequence[Question]) -> DecodeResult:
        """Measure; the first question is run once more before, in both dtypes of transformers, and not counted."""
        prompts = [self._prompt(question) for question in questions]
        result = DecodeResult(
            target=self._engine.target.name,
            drafter=self._engine.drafter.name,
            machine=describe_machine(self._lm.device),
            dtypes={"engine": str(self._lm.dtype).removeprefix("torch.")},
        )
        steps = 2 + len(prompts) * len(METHODS) * self._repeats
        done = 0

        def step() -> None:
            nonlocal done
            self._progress("benchmark", done, steps)
            done += 1

        step()
        model, dtype = self._best_transformers(prompts[0], step)
        result.dtypes["transformers"] = dtype
        methods: dict[str, Callable[[Prompt], TimedTokens | Completion]] = {
            "transformers": lambda prompt: self._transformers(model, prompt),
            "target": lambda prompt: self._generate(prompt, _ALONE),
            "drafter": self._drafter_alone,
            "sd": lambda prompt: self._generate(
                prompt,
                SpeculationConfig(law="target", proposer="drafter", draft_length=PAPER_DRAFT_LENGTH),
                _WHOLE_CONTEXT,
            ),
            "rapid": lambda prompt: self._generate(prompt, self._speculation),
        }
        for number, prompt in enumerate(prompts):
            result.prompt_tokens.append(len(self._engine.explain(prompt).target_ids))
            for _ in range(self._repeats):
                for name, method in methods.items():  # in turn, so that a machine's drift meets all methods
                    step()
                    result.runs.append(_as_run(name, number, method(prompt)))
        self._progress("benchmark", steps, steps)
        return result

    def _prompt(self, question: Question) -> Prompt:
        """Return the question over as much of the document's start as the context takes."""
        vocabulary = self._engine.vocabulary
        whole = Prompt.from_context(question.document, question.question)
        around = len(self._engine.explain(Prompt.from_context("-", question.question)).target_ids)
        offsets = vocabulary.offsets(question.document)
        room = max(1, self._context_tokens - around)
        if len(offsets) <= room:
            return whole
        return Prompt.from_context(question.document[: offsets[room][0]], question.question)

    def _best_transformers(self, prompt: Prompt, step: Callable[[], None]) -> tuple[Any, str]:
        """Return a copy of the target for transformers, in whichever dtype decodes faster here, and warm up."""
        self._generate(prompt, self._speculation, tokens=_WARM_UP_TOKENS)
        best: tuple[float, Any, str] | None = None
        for dtype in (torch.float32, torch.bfloat16):
            model = self._lm.transformers_copy(dtype)
            speed = self._transformers(model, prompt, tokens=4 * _WARM_UP_TOKENS).decode_tps
            if best is None or speed > best[0]:
                best = (speed, model, str(dtype).removeprefix("torch."))
        step()
        assert best is not None
        return best[1], best[2]

    def _transformers(self, model: Any, prompt: Prompt, tokens: int | None = None) -> TimedTokens:
        ids = self._engine.explain(prompt).target_ids
        eos = sorted(self._engine.vocabulary.eos_token_ids)
        return transformers_generate(model, ids, tokens or self._sampling.max_new_tokens, eos)

    def _generate(
        self,
        prompt: Prompt,
        speculation: SpeculationConfig,
        compression: CompressionConfig | None = None,
        tokens: int | None = None,
    ) -> Completion:
        sampling = self._sampling if tokens is None else SamplingParams(max_new_tokens=tokens)
        return self._engine.generate(prompt, sampling=sampling, speculation=speculation, compression=compression)

    def _drafter_alone(self, prompt: Prompt) -> Completion:
        text = self._engine.explain(prompt).drafter.text
        alone = RapidEngine(LoadedModel(self._engine.drafter, self._engine.vocabulary), prefix_cache_bytes=0)
        return alone.generate(text, sampling=self._sampling, speculation=_ALONE, apply_chat_template=False)


def _as_run(method: str, question: int, output: TimedTokens | Completion) -> Run:
    completion = output if isinstance(output, Completion) else None
    speed = output.stats.decode_tps if isinstance(output, Completion) else output.decode_tps
    return Run(method, question, speed, len(output.token_ids), repeated_ngrams(output.token_ids), completion)
