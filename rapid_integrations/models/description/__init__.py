"""A decoder described by data: which modules hold its weights, and what each layer computes with them.

    matrix         how a model holds its matrices
    positions      angles, factors and tables of positions
    attention      attentions, with latents and indexers
    recurrence     what keeps a state instead: delta nets, Mambas, RG-LRUs and short convolutions
    mlp            MLPs and experts
    layer_inputs   inputs that each layer has of its own
    streams        several streams of states
    layer          one layer of these
    decoder        the whole; start here
    contents       what of a description is tensors, matrices or settings
    not_described  the error for what cannot be said

`families` describes the models that are known. The C++ kernels and PyTorch's operators compute from the same
description (`fused_decoder.py`).
"""

from rapid_integrations.models.description.attention import Attention, Indexer, Latent
from rapid_integrations.models.description.contents import matrices, parameters, settings_of
from rapid_integrations.models.description.decoder import Decoder
from rapid_integrations.models.description.layer import Layer, NormedSums
from rapid_integrations.models.description.layer_inputs import LayerInput, LayerInputs
from rapid_integrations.models.description.matrix import (
    Adapter,
    ColumnsOf,
    Inputs,
    OneMatrix,
    RowsOf,
    Stack,
    Transposed,
)
from rapid_integrations.models.description.mlp import Experts, LearnedXielu, Mlp
from rapid_integrations.models.description.not_described import NotDescribedError
from rapid_integrations.models.description.positions import Growth, Positions, Rotation
from rapid_integrations.models.description.recurrence import GatedUnit, Recurrence, Selection, ShortConvolution
from rapid_integrations.models.description.streams import Alternation, Laurel, Streams

__all__ = [
    "Adapter",
    "Alternation",
    "Attention",
    "ColumnsOf",
    "Decoder",
    "Experts",
    "GatedUnit",
    "Growth",
    "Indexer",
    "Inputs",
    "Latent",
    "Laurel",
    "Layer",
    "LayerInput",
    "LayerInputs",
    "LearnedXielu",
    "Mlp",
    "NormedSums",
    "NotDescribedError",
    "OneMatrix",
    "Positions",
    "Recurrence",
    "Rotation",
    "RowsOf",
    "Selection",
    "ShortConvolution",
    "Stack",
    "Streams",
    "Transposed",
    "matrices",
    "parameters",
    "settings_of",
]
