"""Inputs that each layer has of its own, as in Gemma 3n and Gemma 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from rapid_integrations.kernels.layers import Activation, Norm


@dataclass(frozen=True)
class LayerInput:
    """What a layer adds at its end: norm(projection(activation(gate(x)) * input)); see `LayerInputs`."""

    gate: nn.Linear
    projection: nn.Linear
    activation: Activation
    norm: Norm


@dataclass(frozen=True)
class LayerInputs:
    """Inputs of every layer, (T, layers, P): (norm(projection_scale * projection(x)) + scale * row of table) * factor.

    Attributes:
        embedding: the module that holds the table (V, layers * P).
        projection: of the rows of the decoder's own table.
    """

    embedding: Any
    scale: float
    projection: nn.Linear
    projection_scale: float
    norm: Norm
    factor: float
