"""A described decoder on the kernels for GPUs, if they serve it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from rapid_integrations.kernels.cuda import (
    StepLayer,
    StepModel,
    TritonInt4Linear,
    TritonInt8Linear,
    why_not_cuda,
    why_not_served,
)
from rapid_integrations.models.decoder_layer import TakenLayer
from rapid_integrations.models.description import Decoder, Layer, Mlp
from rapid_integrations.models.linear import Int4Linear, Int8Linear, Linear, PackedLinear, PlainLinear

if TYPE_CHECKING:
    from rapid_integrations.kernels.cuda.steps import GraphSteps

_CAPTURED = (PlainLinear, PackedLinear, Int8Linear, Int4Linear, TritonInt8Linear, TritonInt4Linear)
"""Products that launch work and wait for none of it, so that a graph may hold them."""

_MORE = "its layers have factors, adapters or summands of their own"


def gpu_steps(
    described: Decoder, layers: Sequence[TakenLayer], head: Linear, pairs: int
) -> tuple[GraphSteps | None, str]:
    """Return what computes the steps of a decoder on its GPU, or None and the reason.

    Args:
        described: the decoder.
        layers, head: its products.
        pairs: columns of its tables of cosines and sines.
    """
    table = getattr(described.embedding, "weight", None)
    device = torch.device("meta") if table is None else table.device
    if reason := why_not_cuda(device):
        return None, reason
    if table is None or not all(isinstance(each, _CAPTURED) for each in (head, *_products(layers))):
        return None, "weights in the blocks of a GGUF file are multiplied by PyTorch's operators there"
    if reason := described.beyond_gpus:
        return None, reason
    if any(_has_more(layer) for layer in described.layers):
        return None, _MORE
    if any(layer.experts is not None for layer in layers):
        return None, "the kernels for GPUs have no experts"
    if any(layer.latent is not None for layer in layers):
        return None, "the kernels for GPUs have no latent attention"
    model = StepModel(
        [_step_layer(layer) for layer in layers],
        table.data,
        described.norm,
        head,
        heads=described.heads,
        kv_heads=described.kv_heads,
        head_dim=described.head_dim,
        pairs=pairs,
        embedding_scale=described.embedding_scale,
        logit_scale=described.logit_scale,
        logit_softcap=described.logit_softcap,
    )
    if reason := why_not_served(model):
        return None, reason
    from rapid_integrations.kernels.cuda.steps import GraphSteps  # imports Triton

    return GraphSteps(model), ""


def _has_more(layer: Layer) -> bool:
    """Return whether a layer has something that `StepLayer` cannot say, besides what `Decoder.beyond_gpus` names."""
    attention, mlp = layer.attends, layer.mlp
    parts: list[Any] = [layer.alternation, layer.laurel, layer.aside, layer.with_embedding]
    factors = []
    if attention is not None:
        parts.append(attention.adapter)
    if isinstance(mlp, Mlp):
        parts += [mlp.adapter, mlp.sparsity]
        factors += [mlp.gate_factor, mlp.factor]
    return mlp is None or any(parts) or any(factor != 1 for factor in factors)


def _products(layers: Sequence[TakenLayer]) -> list[Linear]:
    return [product for layer in layers for product in layer.products.values()]


def _step_layer(layer: TakenLayer) -> StepLayer:
    described, attention = layer.described, layer.attention
    assert isinstance(layer.mlp, tuple)  # it has no experts, and only layers with recurrences have no MLP
    return StepLayer(
        qkv=layer.qkv,
        out=layer.out,
        gate_up=layer.mlp[0],
        down=layer.mlp[1],
        before_attention=described.before_attention,
        before_mlp=described.before_mlp,
        rope=layer.rope,
        scale=attention.scale,
        after_attention=described.after_attention,
        after_mlp=described.after_mlp,
        query=attention.query,
        key=attention.key,
        window=attention.window,
        kind=layer.kind,
        activation=layer.activation,
        gated=layer.gated,
        parallel=described.parallel,
        residual=described.residual,
    )
