"""A whole decoder, and who computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from rapid_integrations.kernels.layers import INDEXED_COLUMNS, MAX_INDEXED, MAX_STREAMS, Norm
from rapid_integrations.models.description.attention import Attention, Indexer
from rapid_integrations.models.description.layer import Layer
from rapid_integrations.models.description.layer_inputs import LayerInputs
from rapid_integrations.models.description.mlp import Mlp
from rapid_integrations.models.description.positions import Positions, Rotation
from rapid_integrations.models.description.recurrence import Recurrence, ShortConvolution
from rapid_integrations.models.description.streams import Streams


@dataclass(frozen=True)
class Decoder:
    """A whole decoder.

    Attributes:
        heads, kv_heads, head_dim: of every attention. Latent ones have one key head, of the rotated numbers.
        embedding: the module that holds the table (V, E).
        embedding_scale: factor on its rows.
        layers: from the first to the last.
        modules: those of the model whose forward computes one layer each, or two where another one computes its MLP.
        norm: before the head.
        head: the matrix of the logits.
        logit_scale, logit_softcap: logits become softcap * tanh(scale * logit / softcap).
        rotations: what `Attention.rotation` counts.
        inputs: of every layer; None: there are none.
        streams: of states; None: there is one.
        positions: that are learned; None: there are none.
        embedding_norm: of embedded rows, with their positions; None: there is none.
    """

    heads: int
    kv_heads: int
    head_dim: int
    embedding: Any
    layers: Sequence[Layer]
    modules: Sequence[nn.Module | tuple[nn.Module, nn.Module]]
    norm: Norm
    head: nn.Linear
    rotations: Sequence[Rotation]
    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    inputs: LayerInputs | None = None
    streams: Streams | None = None
    positions: Positions | None = None
    embedding_norm: Norm | None = None

    @property
    def attentions(self) -> list[Attention]:
        """The attentions of all layers that have one."""
        return [each for each in (layer.attends for layer in self.layers) if each is not None]

    @property
    def recurrences(self) -> list[Recurrence | ShortConvolution]:
        """What keeps states, of all layers where something does."""
        return [each for each in (layer.recurs for layer in self.layers) if each is not None]

    @property
    def uniform(self) -> bool:
        """Whether all layers have keys and values of their own in heads of one shape, and no inputs of their own."""
        if self.streams is not None or any(layer.input is not None or layer.scale is not None for layer in self.layers):
            return False
        return not self.recurrences and not any(
            each is not None
            for own in self.attentions
            for each in (own.value, own.heads, own.kv_heads, own.head_dim, own.keys_of)
        )

    @property
    def indexers(self) -> list[Indexer]:
        """What chooses keys, of all layers that have one."""
        latents = [each.latent for each in self.attentions]
        return [each.indexer for each in latents if each is not None and each.indexer is not None]

    @property
    def beyond_kernels(self) -> str:
        """What the kernels for processors do not compute of it; empty if they compute all."""
        for each in self.indexers:
            if each.dim % INDEXED_COLUMNS or each.dim > MAX_INDEXED:
                return (
                    f"the keys of its indexers have {each.dim} numbers; the kernels serve multiples of "
                    f"{INDEXED_COLUMNS} up to {MAX_INDEXED}"
                )
        if self.streams is not None and len(self.streams.spread) >= MAX_STREAMS:
            return f"its layers have more than {MAX_STREAMS} streams of states"
        return ""

    @property
    def beyond_gpus(self) -> str:
        """What the kernels for GPUs do not compute of it, beside experts and latents; empty if they compute all."""
        if self.recurrences:
            return "its layers have recurrent states"
        if any(attention.gated for attention in self.attentions):
            return "its heads have gates"
        if any(layer.norms_apart for layer in self.layers):
            return "attention and MLP stand beside each other, each behind a norm of its own"
        if not self.uniform:
            return "its layers have heads of several shapes, inputs of their own or the keys of other layers"
        if any(attention.growth is not None for attention in self.attentions):
            return "its queries grow with their position"
        if any(isinstance(layer.mlp, Mlp) and layer.mlp.xielu is not None for layer in self.layers):
            return "its activation has learned factors (xIELU)"
        if any(attention.factor != 1 for attention in self.attentions):
            return "what its attention gives has a factor"
        if any(layer.normed_sums is not None for layer in self.layers):
            return "its layers add to normalised rows"
        if self.positions is not None or self.embedding_norm is not None:
            return "its positions are learned, or its embedded rows normalised"
        return ""
