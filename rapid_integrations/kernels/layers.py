"""What the parts of a decoder's layer compute, as data: kernels and operators read the same description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from torch import Tensor

Activation: TypeAlias = Literal["silu", "gelu_tanh", "gelu", "relu_squared", "clipped_swiglu", "relu", "xielu"]
"""What is done to the gate of an MLP. `clipped_swiglu` is GPT-OSS's: see `kernels/cpu/norms.h`. `xielu`: `Xielu`."""

NormScope: TypeAlias = Literal["every head", "own head", "all heads"]
"""Of queries and keys: each head with the same weights, each with its own, or all heads of a token as one row."""

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
NORM_SCOPES: tuple[NormScope, ...] = get_args(NormScope)
MAX_STREAMS = 8  # of states, that the kernels compute
INDEXED_COLUMNS, MAX_INDEXED = 64, 512  # an indexer's keys have a multiple of so many numbers there, up to so many


@dataclass(frozen=True)
class Xielu:
    """The numbers of an activation "xielu" (Huang and Schlag 2024, arXiv 2411.13010).

    Of x above 0 it makes positive * x^2 + slope * x, of others negative * (exp(min(x, least)) - 1 - x) + slope * x.
    """

    positive: float
    negative: float
    slope: float
    least: float


@dataclass(frozen=True)
class Norm:
    """(x - mean) / sqrt(mean square + eps) * (weight + offset) + bias, over the last dimension.

    Attributes:
        weight: (E,), of queries and keys (D,), (H, D) or (H * D,) as `scope` says; None stands for ones.
        eps: added to the mean square.
        bias: as `weight`; None stands for zeros.
        centred: whether the mean is taken away (LayerNorm); otherwise it counts as 0 (RMS norm).
        offset: added to the weights. Gemma stores them less one.
        scope: of queries and keys.
    """

    weight: Tensor | None
    eps: float
    bias: Tensor | None = None
    centred: bool = False
    offset: float = 0.0
    scope: NormScope = "every head"


@dataclass(frozen=True)
class Rope:
    """How the heads of a layer are rotated.

    Attributes:
        first: column of the tables of cosines and sines that belongs to the first pair of numbers.
        pairs: how many pairs of a head's numbers are rotated. The others stay as they are.
        interleaved: whether a pair lies together. Otherwise its second number lies `pairs` behind the first.
        norm_behind: whether queries and keys are normalised behind the rotation, and not before it.
    """

    first: int = 0
    pairs: int = 0
    interleaved: bool = False
    norm_behind: bool = False


@dataclass(frozen=True)
class AttentionKind:
    """What an attention does that a plain causal one does not.

    Attributes:
        chunk: a query sees only keys of the chunk of so many positions that it lies in; None: all.
        softcap: scores become softcap * tanh(score / softcap); None: they stay.
        sinks: (H,) float32, for each head the score of a key without a value; None: there is none.
    """

    chunk: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None


PLAIN = AttentionKind()


@dataclass(frozen=True)
class Routing:
    """Which experts a row takes, and with what weights.

    Attributes:
        taken: how many a row takes.
        sigmoid: scores are sigmoids of the router's outputs, and not their softmax.
        normalised: the weights of the experts that are taken are divided by their sum.
        scale: factor on the weights.
        groups, groups_taken: experts are taken only of the groups whose best scores have the largest sums.
        group_best: how many best scores of a group are summed, 1 or 2.
        correction: (N,) float32, added to the scores for the choice, and not for the weights.
        shared: one more expert is taken by every row.
        shared_gate: the router has one more output, whose sigmoid is the shared expert's weight; it is 1 otherwise.
        scales_inputs: the weights are factors on what experts read, and not on what they give.
        logit_scale: factor on the router's outputs for experts.
        logit_softcap: they become softcap * tanh(output / softcap), before all else; None: they stay.
        by_outputs: experts are chosen by the router's outputs and `correction`, and not by scores.
        shared_scale: the shared expert's weight, or a factor on it with `shared_gate`.
        factors: (N,) float32, of each expert, on its weight after all else; None stands for ones.
        near: experts are taken one after another (SparseMixer, arXiv 2409.12136). The weight of each is its softmax
            among the scores s of those that are left, without those of which (best - s) / max(|s|, best) is more than
            this. None: all are taken at once.
    """

    taken: int
    sigmoid: bool = False
    normalised: bool = True
    scale: float = 1.0
    groups: int = 1
    groups_taken: int = 1
    group_best: int = 2
    correction: Tensor | None = None
    shared: bool = False
    shared_gate: bool = False
    scales_inputs: bool = False
    logit_scale: float = 1.0
    factors: Tensor | None = None
    near: float | None = None
    logit_softcap: float | None = None
    by_outputs: bool = False
    shared_scale: float = 1.0


@dataclass(frozen=True)
class Branches:
    """Norms where experts stand beside an MLP: the layer adds after_mlp(MLP) + after(experts), normalised once more.

    MLP, experts and router read the same rows, each through a norm of its own.

    Attributes:
        router, before: of what the router and the experts read.
        after, after_mlp: of what the experts and the MLP give.
    """

    router: Norm
    before: Norm
    after: Norm
    after_mlp: Norm
