"""Mamba and Falcon-Mamba: layers of Mamba and nothing else. And what Jamba's are described with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Decoder, Layer, NotDescribedError, Recurrence, Selection
from rapid_integrations.models.families.parts import rms_norm
from rapid_integrations.models.families.state_heads import TOGETHER, heads_of


def describe(model: Any) -> Decoder:
    """Describe a model."""
    layers = []
    for each in model.base_model.layers:
        norms = falcon_norms(each.mixer) if hasattr(each.mixer, "rms_eps") else (None, None, None)
        layers.append(Layer(mamba(each.mixer, norms), None, rms_norm(each.norm)))
    return decoder_without_attention(model, layers)


def decoder_without_attention(model: Any, layers: Sequence[Layer]) -> Decoder:
    """Describe a model with `embeddings`, `layers` and `norm_f` in its base model, whose heads are of no importance."""
    base = model.base_model
    return Decoder(
        heads=1,
        kv_heads=1,
        head_dim=TOGETHER,
        embedding=base.embeddings,
        layers=layers,
        modules=list(base.layers),
        norm=rms_norm(base.norm_f),
        head=model.lm_head,
        rotations=[],
    )


def falcon_norms(module: Any) -> tuple[Norm | None, Norm | None, Norm | None]:
    """Describe the norms of steps, keys and queries, which have no weights."""
    norm = Norm(None, module.rms_eps)
    return norm, norm, norm


def mamba(module: Any, norms: tuple[Norm | None, Norm | None, Norm | None] = (None, None, None)) -> Recurrence:
    """Describe a Mamba with `in_proj`, `conv1d`, `x_proj`, `dt_proj`, `A_log`, `D` and `out_proj`.

    Args:
        module: it.
        norms: of what steps are computed from, of keys and of queries.

    Raises:
        NotDescribedError: its convolution has another activation than SiLU.
    """
    if module.activation not in ("silu", "swish"):
        raise NotDescribedError(f"the convolutions of its layers have the activation {module.activation}")
    heads, together = heads_of(module.intermediate_size)
    return Recurrence(
        inputs=(module.in_proj,),  # values and then gates
        rates=(),
        out=module.out_proj,
        key_heads=1,
        value_heads=heads,
        key_dim=module.ssm_state_size,
        value_dim=together,
        convolution=module.conv1d.weight,
        decay=module.A_log,
        bias=module.dt_proj.bias,
        norm=None,
        skip=module.D,
        convolution_bias=module.conv1d.bias,
        selection=Selection(module.x_proj, module.dt_proj, norms),
    )


CLASSES = dict.fromkeys(("MambaForCausalLM", "FalconMambaForCausalLM"), describe)
