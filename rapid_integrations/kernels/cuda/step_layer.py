"""What the kernels need to know of a decoder: its layers' products, norms, rotations and attention, as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from rapid_integrations.kernels.layers import PLAIN, Activation, AttentionKind, Norm, Rope

Product: TypeAlias = Callable[[Tensor], Tensor]
"""x (R, K) -> x W^T + b, (R, O). It must not wait for the device, since a graph captures it."""

MAX_HEAD_DIM = 256
MAX_HIDDEN = 32768  # a row lies in one program's registers while it is normalised
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class StepLayer:
    """One decoder layer. A norm that is None is not there; `window` is None if a query sees everything."""

    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    before_attention: Norm | None
    before_mlp: Norm | None
    rope: Rope
    scale: float
    after_attention: Norm | None = None
    after_mlp: Norm | None = None
    query: Norm | None = None
    key: Norm | None = None
    window: int | None = None
    kind: AttentionKind = PLAIN
    activation: Activation = "silu"
    gated: bool = True
    parallel: bool = False
    residual: float = 1.0


@dataclass(frozen=True)
class StepModel:
    """A whole decoder.

    Attributes:
        layers: from the first to the last.
        embedding: (V, E), which also says dtype and device of everything.
        final_norm, head: behind the last layer.
        heads, kv_heads, head_dim: of attention.
        pairs: columns of the tables of cosines and sines.
        embedding_scale, logit_scale: factors on what comes from the embedding and the head.
        logit_softcap: logits become softcap * tanh(logit / softcap), if this is given.
    """

    layers: Sequence[StepLayer]
    embedding: Tensor
    final_norm: Norm
    head: Product
    heads: int
    kv_heads: int
    head_dim: int
    pairs: int
    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float | None = None


def why_not_served(model: StepModel) -> str:
    """Return which part of a decoder the kernels do not compute; empty if they compute all of it."""
    if model.embedding.dtype not in DTYPES:
        return f"the kernels serve {', '.join(map(str, DTYPES))}, not {model.embedding.dtype}"
    if model.head_dim > MAX_HEAD_DIM:
        return f"the kernels serve heads of up to {MAX_HEAD_DIM} numbers, not {model.head_dim}"
    if model.embedding.shape[1] > MAX_HIDDEN:
        return f"the kernels serve rows of up to {MAX_HIDDEN} numbers, not {model.embedding.shape[1]}"
    for layer in model.layers:
        norms = [norm for norm in (layer.query, layer.key) if norm is not None]
        if layer.rope.norm_behind and any(norm.scope == "all heads" for norm in norms):
            return "the kernels do not normalise all heads of a token together behind their rotation"
    return ""
