"""Measure decode speed and time to first token by context length and by retrieved length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rapid_integrations.benchmarks.decode import DecodeBench, DecodeResult
from rapid_integrations.benchmarks.peers import PeerSource
from rapid_integrations.config import CompressionConfig, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.evaluation.timing import spread
from rapid_integrations.progress import OnProgress


@dataclass(frozen=True)
class Point:
    """One method at one context length. `retrieval` is the requested budget in tokens, or None for the default."""

    context: int
    retrieval: int | None
    method: str
    result: DecodeResult

    @property
    def decode_tps(self) -> dict[str, float] | None:
        """Tokens per second of decoding, with their spread; None if there are too few tokens."""
        speeds = self.result.speeds(self.method)
        return spread(speeds) if speeds else None

    @property
    def first_token_s(self) -> float | None:
        """Median seconds to the first token; None for a peer."""
        stats = self.result.stats(self.method)
        return median(s.time_to_first_token_s for s in stats) if stats else None

    @property
    def drafter_tokens(self) -> float | None:
        """Median length of the drafter's prompt; None if there is no drafter."""
        runs = [run.completion for run in self.result.runs if run.method == self.method and run.completion is not None]
        lengths = [completion.usage.drafter_prompt_tokens for completion in runs]
        return median(lengths) if any(lengths) else None

    @property
    def acceptance(self) -> float | None:
        """Accepted share of the draft tokens; None if nothing was drafted."""
        stats = self.result.stats(self.method)
        drafted = sum(s.drafted_tokens for s in stats)
        return sum(s.accepted_tokens for s in stats) / drafted if drafted else None

    def summary(self) -> dict[str, Any]:
        """Return the point, ready for JSON."""
        first, acceptance = self.first_token_s, self.acceptance
        return {
            "context": self.context,
            "retrieval": self.retrieval,
            "method": self.method,
            "prompt_tokens": spread(self.result.prompt_tokens)["median"],
            "drafter_tokens": self.drafter_tokens,
            "decode_tps": self.decode_tps,
            "first_token_s": None if first is None else float(f"{first:.4g}"),
            "acceptance": None if acceptance is None else round(acceptance, 3),
        }


@dataclass
class SweepResult:
    """The points of a sweep: `contexts` with the default retrieval, `retrievals` at the longest context."""

    contexts: list[Point] = field(default_factory=list)
    retrievals: list[Point] = field(default_factory=list)
    interrupted: bool = False

    @property
    def last(self) -> DecodeResult:
        """The result at the longest context. All results have the same target and machine."""
        return self.contexts[-1].result

    def summary(self) -> dict[str, Any]:
        """Return every point, ready for JSON."""
        return {
            "benchmark": "sweep",
            "contexts": [point.summary() for point in self.contexts],
            "retrievals": [point.summary() for point in self.retrievals],
            "questions": len(self.last.prompt_tokens),
            "interrupted": self.interrupted,
            "target": self.last.target,
            "drafter": self.last.drafter,
            "settings": self.last.settings,
            "skipped": self.last.skipped,
            "machine": self.last.machine,
        }


def sweep(
    engine: RapidEngine,
    questions: Sequence[Question],
    *,
    contexts: Sequence[int],
    retrievals: Sequence[int],
    methods: Sequence[str],
    speculation: SpeculationConfig,
    new_tokens: int,
    on_progress: OnProgress,
    source: PeerSource | None = None,
    peers: Sequence[str] = (),
) -> SweepResult:
    """Measure every method at every context length, then RAPID at every retrieval length.

    Args:
        engine: the engine, as for `DecodeBench`. It must not have a prefix cache.
        questions: asked at every point. Their documents should be as long as the longest context.
        contexts: maximum lengths of the target's prompt, in tokens.
        retrievals: maximum lengths of the drafter's context at the longest context, in tokens; may be empty.
        methods: methods of this engine, see `benchmarks.decode`.
        speculation: settings of "rapid".
        new_tokens: maximum length of an answer.
        on_progress: is called with ("benchmark", done, total) for each point. Ctrl-C ends the sweep with those
            that are whole.
        source, peers: see `DecodeBench`.

    Raises:
        ConfigurationError: the engine has a prefix cache; see also `DecodeBench`.
    """
    if engine.reuses_prefixes:
        raise ConfigurationError(
            "the methods read the same prompts, so a prefix cache would falsify the time to their "
            "first token: build it with prefix_cache_bytes=0 and without prefix_cache_dir"
        )

    def measured(context: int, compression: CompressionConfig | None, methods: Sequence[str]) -> DecodeResult:
        found = DecodeBench(
            engine,
            speculation=speculation,
            context_tokens=context,
            new_tokens=new_tokens,
            repeats=1,
            on_progress=on_progress,
            source=source,
            peers=() if compression else peers,
            methods=methods,
            compression=compression,
        ).run(questions)
        if found.interrupted:  # points are medians of the same questions
            raise KeyboardInterrupt
        return found

    result = SweepResult()
    longest = max(contexts)
    try:
        for context in sorted(set(contexts)):
            found = measured(context, None, methods)
            result.contexts += [Point(context, None, method, found) for method in found.methods]
        for retrieval in sorted(set(retrievals)):
            found = measured(longest, _budget(retrieval, longest), ("rapid",))
            result.retrievals.append(Point(longest, retrieval, "rapid", found))
    except KeyboardInterrupt:
        if not result.contexts:
            raise
        result.interrupted = True
    return result


def _budget(retrieval: int, context: int) -> CompressionConfig:
    """Return a compression to `retrieval` tokens, in chunks that fit into it."""
    default = CompressionConfig()
    chunk = max(16, min(default.chunk_tokens, retrieval))
    fitting = max(1, min(default.min_chunks, retrieval // chunk))
    return CompressionConfig(chunk_tokens=chunk, ratio=min(1.0, retrieval / context), min_tokens=1, min_chunks=fitting)
