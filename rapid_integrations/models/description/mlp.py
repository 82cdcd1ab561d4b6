"""An MLP, and experts in its place or beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from rapid_integrations.kernels.layers import Activation, Branches, Routing, Xielu
from rapid_integrations.models.description.matrix import Adapter, Inputs, OneMatrix, Stack


@dataclass(frozen=True)
class LearnedXielu:
    """The activation "xielu" whose factors were learned; see `kernels.layers.Xielu`.

    Attributes:
        positive, negative: (1,), behind whose softplus the factors are; `slope` is added to the second one.
        slope, least: (), constants of the activation.
    """

    positive: Tensor
    negative: Tensor
    slope: Tensor
    least: Tensor

    @property
    def numbers(self) -> Xielu:
        """What is computed with, rounded to the dtype of the weights as the model does."""
        with torch.inference_mode():
            positive, negative = softplus(self.positive), self.slope + softplus(self.negative)
        return Xielu(*(each.item() for each in (positive, negative, self.slope, self.least)))


@dataclass(frozen=True)
class Mlp:
    """down(activation(gate) * up), or down(activation(up)) if it is not `gated`.

    Attributes:
        sparsity: share of the gate's numbers that are to become 0; see `alternating.thinned`.
        gate_factor: on the gate before its activation.
        factor: on what `down` gives.
        adapter: beside `gate_up`, of a layer with `Layer.aside`; None: there is none.
        xielu: the numbers of an activation "xielu".
    """

    gate_up: Inputs
    down: OneMatrix
    activation: Activation
    gated: bool = True
    sparsity: float = 0.0
    gate_factor: float = 1.0
    factor: float = 1.0
    adapter: Adapter | None = None
    xielu: LearnedXielu | None = None


@dataclass(frozen=True)
class Experts:
    """MLPs of which each row takes a few.

    Attributes:
        router: (N, E) with its bias (N,), or None.
        shared_gate: the matrix (1, E) behind whose sigmoid the shared expert stands.
        shared: the MLP that every row takes.
        inner: intermediate numbers of one expert.
        gated: they have a gate, as an `Mlp` does; the shared one, too.
        branches: norms of experts that stand beside an MLP with the same activation; None: they stand in its place.
    """

    router: tuple[Tensor, Tensor | None]
    routing: Routing
    gate_up: Stack
    down: Stack
    activation: Activation
    shared: Mlp | None = None
    shared_gate: nn.Linear | None = None
    inner: int = 0
    gated: bool = True
    branches: Branches | None = None
