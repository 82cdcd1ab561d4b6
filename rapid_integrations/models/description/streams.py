"""Several streams of states, and what else stands beside a layer in Gemma 3n; `alternating` computes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description.matrix import Inputs


@dataclass(frozen=True)
class Laurel:
    """A learned augmented residual: x + norm(right(left(x))) of what the attention reads; see `alternating`."""

    left: nn.Linear
    right: nn.Linear
    norm: Norm


@dataclass(frozen=True)
class Alternation:
    """How a layer guesses and corrects n streams of states; see `alternating`.

    Attributes:
        prediction, correction: (n * n, n) and (n, n), of what the router says.
        router: (n, E), of the active stream, which is normalised and scaled.
        output: (E,), factors on the active stream before the layer's own input meets it; None: 1.
    """

    prediction: nn.Linear
    correction: nn.Linear
    router: nn.Linear
    norm: Norm
    scale: float
    output: Tensor | None


@dataclass(frozen=True)
class Streams:
    """How a decoder makes n streams of states of its embedding's rows, and one of them before the head.

    Attributes:
        spread, merged: a matrix for each stream but the first.
        active: number of the stream that the layers compute.
    """

    spread: Inputs
    merged: Inputs
    active: int
