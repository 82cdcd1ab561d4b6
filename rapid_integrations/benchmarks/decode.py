"""Measure decode speed of RAPID and its competitors with the same model, prompts, machine and run.

the peers      other engines (`benchmarks.peers`)
target         the target alone, on this engine
target_int8    the target alone with other weights: int8, int4, or as they come (target_plain)
target_lookup  the target alone with drafts copied from its text: law "target", proposer "prompt_lookup"
drafter        the drafter alone with the retrieved chunks (plain RAG)
sd_full        naive speculative decoding: the drafter reads the whole context, law "target"
rapid          the engine as configured
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any, Final, TypeAlias

from rapid_integrations.benchmarks.forward_clock import ForwardClock
from rapid_integrations.benchmarks.interrupted import kept_if_interrupted
from rapid_integrations.benchmarks.peers import PEERS, Peer, PeerSource, TimedTokens, open_peers, require_known
from rapid_integrations.benchmarks.prompts import prompt_of_length, room_beside
from rapid_integrations.benchmarks.round_costs import RoundCosts, measured_costs
from rapid_integrations.config import PAPER_DRAFT_LENGTH, CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.evaluation.timing import describe_machine, repeated_ngrams, spread
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.outputs import Completion, DecodeStats
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import Prompt

OWN_METHODS: Final = ("target", "target_lookup", "drafter", "sd_full", "rapid")
PLAIN: Final = ("transformers", "openvino", "llama_cpp", "target", "target_plain", "target_int8", "target_int4")
"""Methods that decode the target's own answer without drafts."""
ALONE = SpeculationConfig(law="target", proposer="none")
_LOOKUP = SpeculationConfig(law="target", proposer="prompt_lookup")
_NAIVE = SpeculationConfig(law="target", proposer="drafter", draft_length=PAPER_DRAFT_LENGTH)
_WHOLE_CONTEXT = CompressionConfig(ratio=1.0)
_WARM_UP_TOKENS = 8

Method: TypeAlias = Callable[[Prompt, int], TimedTokens | Completion]
"""Answers a prompt with at most the given number of tokens."""


@dataclass(frozen=True)
class Run:
    """One answer by one method.

    Attributes:
        method: its name.
        question: its number.
        decode_tps: tokens per second; None if there are too few tokens.
        tokens: number of tokens of the answer.
        repeated_4grams: share of its 4-grams that occurred before.
        completion: the completion of this engine; None for a peer.
        forward_s: seconds of decoding inside the models' forward passes; None for a peer.
    """

    method: str
    question: int
    decode_tps: float | None
    tokens: int
    repeated_4grams: float
    completion: Completion | None = None
    forward_s: float | None = None


@dataclass
class DecodeResult:
    """Every run of a benchmark, with the settings and the machine."""

    target: str
    drafter: str
    machine: dict[str, str | int]
    settings: dict[str, dict[str, str | float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    prompt_tokens: list[int] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    interrupted: bool = False

    @property
    def methods(self) -> list[str]:
        """Names of the methods that ran, in the order of the runs."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def peers(self) -> list[str]:
        """Names of the peers that ran."""
        return [method for method in self.methods if method in PEERS]

    def speeds(self, method: str) -> list[float]:
        """Return a method's decode tokens/s, one per run."""
        return [run.decode_tps for run in self._of(method) if run.decode_tps is not None]

    def ratios(self, method: str, over: str) -> list[float]:
        """Return the ratio of two methods' speeds, one per question that both have a speed for (medians of repeats)."""
        mine, theirs = self._by_question(method), self._by_question(over)
        return [mine[question] / theirs[question] for question in mine if question in theirs]

    def stats(self, method: str) -> list[DecodeStats]:
        """Return the statistics of one of this engine's methods, one per run."""
        return [run.completion.stats for run in self._of(method) if run.completion is not None]

    def outside_forward(self, method: str) -> float | None:
        """Return the share of a method's rounds outside the models' forward passes; None for a peer."""
        decode_s = sum(stats.decode_s for stats in self.stats(method))
        forward_s = sum(run.forward_s or 0.0 for run in self._of(method))
        return max(0.0, 1.0 - forward_s / decode_s) if decode_s else None

    def costs(self) -> RoundCosts | None:
        """Return the costs of RAPID's rounds in this run, or None if it drafted nothing."""
        return measured_costs(self.stats("rapid"), self.stats("target"))

    def fastest_plain(self) -> str | None:
        """Return the method without drafts that has the best median, or None if none ran."""
        plain = [method for method in self.methods if method in PLAIN and self.speeds(method)]
        return max(plain, key=lambda method: median(self.speeds(method)), default=None)

    def summary(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        over = [*self.peers, "target"]
        over += [method for method in self.methods if method in PLAIN and method not in over]
        pairs = [(m, o) for m in self.methods if m not in PEERS for o in over if m != o and o in self.methods]
        return {
            "benchmark": "decode",
            "methods": {method: self._summary(method) for method in self.methods},
            "ratios": {f"{m}/{o}": spread(ratios) for m, o in pairs if (ratios := self.ratios(m, o))},
            "fastest_plain": self.fastest_plain(),
            "bound": self._bound(),
            "skipped": self.skipped,
            "prompt_tokens": spread(self.prompt_tokens),
            "questions": len(self.prompt_tokens),
            "interrupted": self.interrupted,
            "target": self.target,
            "drafter": self.drafter,
            "settings": self.settings,
            "machine": self.machine,
        }

    def _summary(self, method: str) -> dict[str, Any]:
        runs, speeds, stats = self._of(method), self.speeds(method), self.stats(method)
        row: dict[str, Any] = {
            "decode_tps": spread(speeds) if speeds else None,
            "tokens": sum(run.tokens for run in runs),
            "repeated_4grams": round(mean(run.repeated_4grams for run in runs), 3),
        }
        if (outside := self.outside_forward(method)) is not None:
            row["outside_forward"] = round(outside, 3)
        if drafted := sum(s.drafted_tokens for s in stats):
            row |= {
                "law": stats[0].law,
                "proposer": stats[0].proposer,
                "acceptance": round(sum(s.accepted_tokens for s in stats) / drafted, 3),
                "tokens_per_round": round(sum(s.tokens for s in stats) / sum(s.rounds for s in stats), 2),
            }
        return row

    def _bound(self) -> dict[str, Any] | None:
        if (costs := self.costs()) is None:
            return None
        (tps, draft_length), (limit, without) = costs.best(), costs.limit()
        return {
            "tps": _figures(tps),
            "reached": round(median(self.speeds("rapid")) / tps, 3),
            "draft_length": draft_length,
            "limit": limit,
            "tps_without_limit": _figures(without),
            "per_token_acceptance": round(costs.acceptance, 3),
            "draft_ms": _figures(1e3 * costs.draft_s),
            "verify_ms": _figures(1e3 * costs.verify_s),
            "verify_per_token_ms": _figures(1e3 * costs.verify_per_token_s),
            "score_ms": _figures(1e3 * costs.score_s),
            "outside_ms": _figures(1e3 * costs.outside_s),
        }

    def _of(self, method: str) -> list[Run]:
        return [run for run in self.runs if run.method == method]

    def _by_question(self, method: str) -> dict[int, float]:
        speeds: dict[int, list[float]] = {}
        for run in self._of(method):
            if run.decode_tps:
                speeds.setdefault(run.question, []).append(run.decode_tps)
        return {question: median(values) for question, values in speeds.items()}


class DecodeBench:
    """Runs every method on every question.

    Args:
        engine: its settings apply to all of its methods, except those that define a method. If it has a prefix cache,
            only the first method prefills a document. This changes the time to the first token, but not decoding.
        speculation: settings of "rapid".
        context_tokens: maximum length of the target's prompt, which is cut at the document's end.
        new_tokens: maximum length of an answer, which ends earlier at an eos token.
        repeats: runs of each question and method.
        source: what peers are made from, without the prompt for the warm-up; None for no peers.
        peers: names as in `benchmarks.peers`.
        methods: methods of this engine; "target" and "rapid" are needed for the bound.
        also: further engines, by the name of the method of their target alone, see `PLAIN`.
        compression: settings of "rapid" and "drafter", instead of the engine's.
        temperature, top_p: settings of this engine's methods; peers decode greedily.
        on_progress: is called with ("benchmark", done, total).

    Raises:
        ConfigurationError: a peer or method is unknown.
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
        source: PeerSource | None = None,
        peers: Sequence[str] = (),
        methods: Sequence[str] = OWN_METHODS,
        also: Mapping[str, RapidEngine] | None = None,
        compression: CompressionConfig | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
    ) -> None:
        require_known(peers)
        if unknown := [method for method in methods if method not in OWN_METHODS]:
            raise ConfigurationError(
                f"no method is called {', '.join(map(repr, unknown))}; there are: {', '.join(OWN_METHODS)}"
            )
        self._engine = engine
        self._speculation = speculation
        self._context_tokens = room_beside(engine, new_tokens, context_tokens)
        self._new_tokens = new_tokens
        self._repeats = repeats
        self._progress = on_progress
        self._source = source
        self._peers = peers
        self._methods = methods
        self._also = also or {}
        self._compression = compression
        self._params = SamplingParams(temperature=temperature, top_p=top_p)
        self._clock = ForwardClock()

    def run(self, questions: Sequence[Question]) -> DecodeResult:
        """Run the benchmark. Each method first answers the first question in a few tokens, as a warm-up.

        Ctrl-C ends it with the questions that every method has answered.
        """
        prompts = [prompt_of_length(self._engine, question, self._context_tokens) for question in questions]
        result = DecodeResult(
            target=self._engine.target.name,
            drafter=self._engine.drafter.name,
            machine=describe_machine(self._engine.target.device),
            settings={
                "engine": _engine_settings(self._engine) | self._params.model_dump(include={"temperature", "top_p"})
            },
        )
        self._progress("open peers", 0, 1)
        peers, result.skipped = self._open_peers(prompts[0])
        self._progress("open peers", 1, 1)
        result.settings |= {name: _engine_settings(engine) for name, engine in self._also.items()}
        result.settings |= {name: peer.settings for name, peer in peers.items()}
        methods = {name: self._peer(peer) for name, peer in peers.items()} | self._own_methods()
        steps, done = len(methods) * (1 + len(prompts) * self._repeats), 0
        self._progress("benchmark", done, steps)
        readers = [self._engine.target, self._engine.drafter, self._engine.draft_lm]
        readers += [engine.target for engine in self._also.values()]
        with self._clock.over(*(lm for lm in readers if lm is not None)):
            for method in methods.values():
                method(prompts[0], _WARM_UP_TOKENS)
                self._progress("benchmark", done := done + 1, steps)
            with kept_if_interrupted(result):
                for number, prompt in enumerate(prompts):
                    result.prompt_tokens.append(self._engine.count_tokens(prompt))
                    for _ in range(self._repeats):
                        for name, method in methods.items():  # in turn, so that a drift of the machine affects all
                            result.runs.append(self._timed(name, number, method, prompt))
                            self._progress("benchmark", done := done + 1, steps)
        return result

    def _open_peers(self, prompt: Prompt) -> tuple[dict[str, Peer], dict[str, str]]:
        if self._source is None or not self._peers:
            return {}, {}
        self._source.warm_up_ids = self._target_ids(prompt)
        return open_peers(self._peers, self._source)

    def _peer(self, peer: Peer) -> Method:
        eos = sorted(self._engine.vocabulary.eos_token_ids)
        return lambda prompt, tokens: peer.generate(self._target_ids(prompt), tokens, eos)

    def _own_methods(self) -> dict[str, Method]:
        methods: dict[str, Method] = {
            "target": self._engine_with(ALONE),
            **{name: self._engine_with(ALONE, engine=engine) for name, engine in self._also.items()},
            "target_lookup": self._engine_with(_LOOKUP),
            "drafter": self._drafter_alone,
            "sd_full": self._engine_with(_NAIVE, _WHOLE_CONTEXT),
            "rapid": self._engine_with(self._speculation, self._compression),
        }
        return {name: method for name, method in methods.items() if name in (*self._methods, *self._also)}

    def _engine_with(
        self,
        speculation: SpeculationConfig,
        compression: CompressionConfig | None = None,
        engine: RapidEngine | None = None,
    ) -> Method:
        return lambda prompt, tokens: (engine or self._engine).generate(
            prompt, sampling=self._sampling(tokens), speculation=speculation, compression=compression
        )

    def _drafter_alone(self, prompt: Prompt, tokens: int) -> Completion:
        text = self._engine.explain(prompt, compression=self._compression).drafter.text
        alone = RapidEngine(LoadedModel(self._engine.drafter, self._engine.vocabulary), prefix_cache_bytes=0)
        return alone.generate(text, sampling=self._sampling(tokens), speculation=ALONE, apply_chat_template=False)

    def _sampling(self, tokens: int) -> SamplingParams:
        return self._params.model_copy(update={"max_new_tokens": tokens})

    def _timed(self, name: str, number: int, method: Method, prompt: Prompt) -> Run:
        self._engine.clear_texts()  # a proposer would copy the answer that the warm-up or an earlier repeat gave
        before = self._clock.seconds
        output = method(prompt, self._new_tokens)
        repeated = repeated_ngrams(output.token_ids)
        if not isinstance(output, Completion):
            return Run(name, number, output.decode_tps, len(output.token_ids), repeated)
        spent = self._clock.seconds - before
        return Run(name, number, output.stats.decode_tps, len(output.token_ids), repeated, output, spent)

    def _target_ids(self, prompt: Prompt) -> list[int]:
        """Return the target's prompt as token ids."""
        return self._engine.stream(
            prompt, speculation=ALONE, sampling=SamplingParams(max_new_tokens=1)
        ).prepared.target_ids


def _engine_settings(engine: RapidEngine) -> dict[str, str | float]:
    """Return the engine's dtypes, and the bytes of weights that a step reads."""
    settings: dict[str, str | float] = {}
    for prefix, lm in (("", engine.target), ("drafter_", engine.drafter)):
        settings[f"{prefix}dtype"] = str(getattr(lm, "dtype", "unknown")).removeprefix("torch.")
        settings[f"{prefix}weights_mb"] = round(lm.weight_bytes / 1e6)
    return settings


def _figures(value: float) -> float:
    return float(f"{value:.4g}")
