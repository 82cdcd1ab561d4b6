"""Measure the passes of a round for a model of a known shape, and model tokens/s from them.

draft    the drafter reads one token after the retrieved text
score    the drafter reads K tokens there that another proposer has guessed
verify   the target reads K + 1 tokens after the whole context

The KV caches hold random values, which do not change the cost of a step. Acceptance is not measured but assumed
(`ACCEPTANCE`). Sampling, text and bookkeeping are left out; `rapid bench decode` measures them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from rapid_integrations.benchmarks.bandwidth import copy_bandwidth, median_seconds
from rapid_integrations.benchmarks.round_costs import expected_tokens
from rapid_integrations.benchmarks.shapes import load_shape, random_cache, random_model
from rapid_integrations.cache import Rows
from rapid_integrations.config import Quantization
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.timing import describe_machine
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.progress import OnProgress

ACCEPTANCE: Final = (0.8, 0.9)
DRAFTING: Final = ("target_lookup", "rapid", "rapid_lookup")


@dataclass(frozen=True)
class Step:
    """One kind of forward pass.

    Attributes:
        kind: "draft", "score" or "verify".
        context: number of tokens in the KV cache.
        new: number of tokens of the pass.
        seconds: median time.
        bytes_read: bytes of weights and KV cache.
    """

    kind: str
    context: int
    new: int
    seconds: float
    bytes_read: int

    @property
    def bandwidth(self) -> float:
        """Memory bandwidth in bytes per second."""
        return self.bytes_read / self.seconds


@dataclass(frozen=True)
class Modelled:
    """The modelled tokens/s of a method.

    Attributes:
        method: "target" alone, "target_lookup" (the target verifies copies), "rapid" (the drafter drafts) or
            "rapid_lookup" (the drafter scores copies).
        context: number of tokens in the target's cache.
        acceptance: assumed acceptance per token; None for the target alone.
        draft_length: the best measured length; 0 for the target alone.
        tps: tokens per second.
    """

    method: str
    context: int
    acceptance: float | None
    draft_length: int
    tps: float


@dataclass
class StepsResult:
    """Measured steps of a shape, and the speed modelled from them. `layers_built` of `layers` were measured."""

    shape: str
    drafter_shape: str
    dtype: str
    drafter_dtype: str
    layers: int
    layers_built: int
    retrieval: int
    draft_lengths: list[int]
    copy_bandwidth: float
    machine: dict[str, str | int]
    steps: list[Step] = field(default_factory=list)

    @property
    def contexts(self) -> list[int]:
        """The target's context lengths."""
        return sorted({step.context for step in self.steps if step.kind == "verify"})

    def seconds(self, kind: str, context: int, new: int) -> float:
        """Return the seconds of a step."""
        return next(s.seconds for s in self.steps if (s.kind, s.context, s.new) == (kind, context, new))

    def modelled(self) -> list[Modelled]:
        """Return tokens/s for every context and acceptance, at the best draft length that was measured."""
        rows: list[Modelled] = []
        for context in self.contexts:
            rows.append(Modelled("target", context, None, 0, 1.0 / self.seconds("verify", context, 1)))
            for a in ACCEPTANCE:
                for method in DRAFTING:
                    tps, k = max((self._tps(method, context, a, k), k) for k in self.draft_lengths)
                    rows.append(Modelled(method, context, a, k, tps))
        return rows

    def summary(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "benchmark": "steps",
            "modelled": True,
            "shape": self.shape,
            "drafter_shape": self.drafter_shape,
            "dtype": self.dtype,
            "drafter_dtype": self.drafter_dtype,
            "layers": self.layers,
            "layers_built": self.layers_built,
            "retrieval_tokens": self.retrieval,
            "copy_gb_per_s": _figures(self.copy_bandwidth / 1e9),
            "steps": [
                {
                    "step": step.kind,
                    "context": step.context,
                    "new_tokens": step.new,
                    "ms": _figures(1e3 * step.seconds),
                    "gb_per_s": _figures(step.bandwidth / 1e9),
                    "of_copy_bandwidth": round(step.bandwidth / self.copy_bandwidth, 3),
                }
                for step in self.steps
            ],
            "modelled_tps": [
                {
                    "method": row.method,
                    "context": row.context,
                    "acceptance": row.acceptance,
                    "draft_length": row.draft_length,
                    "tps": _figures(row.tps),
                    "to_target": round(row.tps * self.seconds("verify", row.context, 1), 3),
                }
                for row in self.modelled()
            ],
            "machine": self.machine,
        }

    def _tps(self, method: str, context: int, a: float, k: int) -> float:
        verify = self.seconds("verify", context, k + 1)
        if method == "target_lookup":
            return expected_tokens(a, k) / verify
        if method == "rapid_lookup":
            return expected_tokens(a, k) / (verify + self.seconds("score", self.retrieval, k))
        draft = self.seconds("draft", self.retrieval, 1)
        # Each draft token comes with its q. A draft that is accepted whole needs one more q for the token after it.
        return expected_tokens(a, k) / (verify + (k + a**k) * draft)


def measure_steps(
    shape: str,
    *,
    drafter_shape: str | None = None,
    contexts: Sequence[int],
    retrieval: int,
    draft_lengths: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    layers: int | None = None,
    quantization: Quantization | None = None,
    drafter_quantization: Quantization | None = None,
    on_progress: OnProgress,
) -> StepsResult:
    """Measure the steps of a round.

    Args:
        shape: a name, or a config.json.
        drafter_shape: the drafter's shape; None drafts with the target.
        contexts: numbers of tokens in the target's cache.
        retrieval: number of tokens in the drafter's cache.
        draft_lengths: the values of K to measure.
        dtype, device: dtype and device of weights and caches.
        layers: number of layers to build. Times are extrapolated from these and half of them. None builds all.
        quantization: quantisation of the weights; None keeps them in `dtype`.
        drafter_quantization: of the drafter's; None takes the target's.
        on_progress: is called with ("measure steps", done, total).

    Raises:
        ConfigurationError: a shape is unknown or does not fit, or a length is invalid.
    """
    if not contexts or not draft_lengths or min(*contexts, *draft_lengths, retrieval) < 1:
        raise ConfigurationError(
            f"contexts {list(contexts)}, draft lengths {list(draft_lengths)} and retrieval {retrieval}: give at least "
            "one of each, all of them 1 or more"
        )
    target, drafter = load_shape(shape), load_shape(drafter_shape or shape)
    form, drafter_form = quantization, drafter_quantization or quantization
    same = drafter == target and drafter_form == form
    whole = int(target["num_hidden_layers"])
    built = whole if layers is None else min(max(2, layers), whole)
    target_steps = [("verify", context, k) for context in contexts for k in (1, *(k + 1 for k in draft_lengths))]
    drafter_steps = [("draft", retrieval, 1), *(("score", retrieval, k) for k in draft_lengths)]
    result = StepsResult(
        shape,
        drafter_shape or shape,
        form or str(dtype).removeprefix("torch."),
        drafter_form or str(dtype).removeprefix("torch."),
        whole,
        built,
        retrieval,
        sorted(set(draft_lengths)),
        copy_bandwidth(device),
        describe_machine(device),
    )
    place = (dtype, device, form, on_progress)
    if same:
        result.steps = _of_all_layers(shape, target, built, [*target_steps, *drafter_steps], *place)
    else:
        result.steps = _of_all_layers(shape, target, built, target_steps, *place)
        small = min(built, int(drafter["num_hidden_layers"])) if layers else int(drafter["num_hidden_layers"])
        place = (dtype, device, drafter_form, on_progress)
        result.steps += _of_all_layers(drafter_shape or shape, drafter, small, drafter_steps, *place)
    return result


def _of_all_layers(
    name: str,
    shape: Mapping[str, Any],
    built: int,
    wanted: Sequence[tuple[str, int, int]],
    dtype: torch.dtype,
    device: torch.device,
    quantization: Quantization | None,
    on_progress: OnProgress,
) -> list[Step]:
    """Return the steps of a whole model, extrapolated linearly from two smaller ones if fewer layers were built."""
    whole = int(shape["num_hidden_layers"])

    def measured(layers: int) -> list[Step]:
        lm = random_model(name, shape, dtype, device, layers, quantization)
        try:
            return _measure(lm, wanted, on_progress)
        finally:
            lm.close()

    large = measured(built)
    if built == whole:
        return large
    half = built // 2
    small = measured(half)
    beyond = (whole - built) / (built - half)

    def extended(kind: str, many: Step, few: Step) -> Step:
        seconds = many.seconds + beyond * max(0.0, many.seconds - few.seconds)
        read = many.bytes_read + round(beyond * (many.bytes_read - few.bytes_read))
        return Step(kind, many.context, many.new, seconds, read)

    return [extended(many.kind, many, few) for many, few in zip(large, small, strict=True)]


def _measure(lm: HuggingFaceLM, wanted: Sequence[tuple[str, int, int]], on_progress: OnProgress) -> list[Step]:
    weights = lm.weight_bytes
    steps: dict[tuple[str, int, int], Step] = {}
    for context in dict.fromkeys(context for _, context, _ in wanted):
        here = [step for step in wanted if step[1] == context]
        cache = random_cache(lm, context, max(new for _, _, new in here))
        kv = cache.nbytes * context // cache.capacity
        for kind, _, new in here:
            on_progress("measure steps", len(steps), len(wanted))
            ids = torch.arange(new, device=lm.device) % lm.vocab_size

            def step(ids: torch.Tensor = ids, new: int = new, cache: Any = cache, context: int = context) -> None:
                lm.forward([Rows(ids, cache, new)])
                cache.rollback(context)

            seconds = median_seconds(step, lm.device)
            steps[kind, context, new] = Step(kind, context, new, seconds, weights + kv)
        del cache
    on_progress("measure steps", len(wanted), len(wanted))
    return [steps[key] for key in wanted]


def _figures(value: float) -> float:
    return float(f"{value:.4g}")
