"""What the descriptions of families with learned positions are made of: GPT-2, OPT and GPT-BigCode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Decoder, Layer, Positions


def decoder_with_positions(
    model: Any,
    layers: Sequence[Layer],
    modules: Any,
    norm: Norm,
    embedding: nn.Module,
    positions: Positions,
    kv_heads: int | None = None,
) -> Decoder:
    """Describe a model with `lm_head` whose heads are not rotated. `kv_heads`: None if each query head has its own."""
    config = model.config
    return Decoder(
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads if kv_heads is None else kv_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        embedding=embedding,
        layers=layers,
        modules=list(modules),
        norm=norm,
        head=model.lm_head,
        rotations=[],
        positions=positions,
    )
