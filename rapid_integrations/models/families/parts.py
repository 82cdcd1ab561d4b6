"""What the descriptions of families are made of: the parts that most of them share, under their usual names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import nn

from rapid_integrations.kernels.layers import PLAIN, Activation, AttentionKind, Norm, NormScope
from rapid_integrations.models.description import (
    Attention,
    Decoder,
    Experts,
    Layer,
    LayerInput,
    LayerInputs,
    Mlp,
    NotDescribedError,
    Recurrence,
    Rotation,
    Streams,
)

_ACTIVATIONS: Final[dict[str, Activation]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
}


def rms_norm(module: Any, scope: NormScope = "every head") -> Norm:
    """Describe an RMS norm, whose epsilon has one of its two usual names."""
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    return Norm(module.weight, eps, scope=scope)


def rms_norm_of_all_heads(module: Any) -> Norm:
    """Describe an RMS norm that takes all heads of a token as one row."""
    return rms_norm(module, "all heads")


def rms_norm_plus_one(module: Any) -> Norm:
    """Describe Gemma's RMS norm, whose weights are stored less one."""
    return Norm(module.weight, module.eps, offset=1.0)


def layer_norm(module: Any) -> Norm:
    """Describe a `nn.LayerNorm`."""
    return Norm(module.weight, module.eps, bias=module.bias, centred=True)


def activation(name: str) -> Activation:
    """Return what the kernels call an activation of transformers.

    Raises:
        NotDescribedError: they have no such one.
    """
    if name not in _ACTIVATIONS:
        raise NotDescribedError(f"the activation {name} has no description")
    return _ACTIVATIONS[name]


def attention(
    module: Any,
    *,
    window: int | None = None,
    kind: AttentionKind = PLAIN,
    norms: tuple[Norm | None, Norm | None] = (None, None),
    rotation: int | None = 0,
    interleaved: bool = False,
    norm_behind: bool = False,
    out: nn.Linear | None = None,
) -> Attention:
    """Describe an attention with `q_proj`, `k_proj`, `v_proj` or `qkv_proj`, `o_proj` (or `out`) and `scaling`."""
    fused = getattr(module, "qkv_proj", None)
    return Attention(
        qkv=(module.q_proj, module.k_proj, module.v_proj) if fused is None else (fused,),
        out=module.o_proj if out is None else out,
        scale=module.scaling,
        window=window,
        kind=kind,
        query=norms[0],
        key=norms[1],
        rotation=rotation,
        interleaved=interleaved,
        norm_behind=norm_behind,
    )


def head_norms(module: Any, norm: Callable[[Any], Norm] = rms_norm) -> tuple[Norm | None, Norm | None]:
    """Describe `q_norm` and `k_norm`, if an attention has them."""
    if not hasattr(module, "q_norm"):
        return None, None
    return norm(module.q_norm), norm(module.k_norm)


def gated_mlp(module: Any, config: Any, name: str = "hidden_act") -> Mlp:
    """Describe an MLP with `gate_proj` and `up_proj`, or `gate_up_proj`, and `down_proj`."""
    fused = getattr(module, "gate_up_proj", None)
    return Mlp(
        gate_up=(module.gate_proj, module.up_proj) if fused is None else (fused,),
        down=module.down_proj,
        activation=activation(getattr(config, name)),
    )


def shared_mlp(module: Any, config: Any) -> Mlp:
    """Describe the MLP that Granite has beside experts or alone. One of a GGUF file has its gates apart."""
    whole = getattr(module, "input_linear", None)
    gate_up = (module.gate_proj, module.up_proj) if whole is None else (whole,)
    return Mlp(gate_up, module.output_linear, activation(config.hidden_act))


def layer(
    module: Any,
    own_attention: Attention | Recurrence,
    mlp: Mlp | Experts,
    norm: Callable[[Any], Norm] = rms_norm,
    residual: float = 1.0,
) -> Layer:
    """Describe a layer with `input_layernorm` and `post_attention_layernorm` before its two parts, as Llama has it."""
    return Layer(
        attention=own_attention,
        mlp=mlp,
        before_attention=norm(module.input_layernorm),
        before_mlp=norm(module.post_attention_layernorm),
        residual=residual,
    )


def layer_between_norms(
    module: Any, own_attention: Attention, mlp: Mlp, norm: Callable[[Any], Norm] = rms_norm, **others: Any
) -> Layer:
    """Describe a layer with norms before and behind both of its parts, as Gemma has it; `others` are of `Layer`."""
    return Layer(
        attention=own_attention,
        mlp=mlp,
        before_attention=norm(module.input_layernorm),
        after_attention=norm(module.post_attention_layernorm),
        before_mlp=norm(module.pre_feedforward_layernorm),
        after_mlp=norm(module.post_feedforward_layernorm),
        **others,
    )


def layer_input(module: Any, config: Any) -> LayerInput:
    """Describe what a layer of Gemma adds of its own input: `per_layer_input_gate` and `per_layer_projection`."""
    gate, projection = module.per_layer_input_gate, module.per_layer_projection
    norm = rms_norm(module.post_per_layer_input_norm)
    return LayerInput(gate, projection, activation(config.hidden_activation), norm)


def layer_inputs(base: Any, scale: float, factor: float) -> LayerInputs:
    """Describe the inputs of all layers, of `embed_tokens_per_layer` and `per_layer_model_projection`."""
    table, projection = base.embed_tokens_per_layer, base.per_layer_model_projection
    norm = rms_norm(base.per_layer_projection_norm)
    rows = getattr(table, "rows", table)  # one in blocks has rows in bfloat16 beside it
    return LayerInputs(rows, embedding_scale(table), projection, scale, norm, factor)


def embedding_scale(table: Any) -> float:
    """Return the factor on the rows of Gemma's tables, which is rounded to the dtype of the rows."""
    return rounded(table.scalar_embed_scale, table.weight.dtype)


def rounded(number: float, dtype: torch.dtype) -> float:
    """Return a factor as a model has it that keeps it in its own dtype."""
    return torch.tensor(number, dtype=dtype, device="cpu").item()


def sliding(config: Any, index: int) -> int | None:
    """Return the window of a layer whose kind is in `layer_types`; None: it sees all keys."""
    kinds = getattr(config, "layer_types", None)
    window: int | None = config.sliding_window if kinds and kinds[index] == "sliding_attention" else None
    return window


def rotation_of(module: Any, kind: str = "") -> Rotation:
    """Return the angles of a rotary embedding. `kind`: of the layers, if they have angles of their own.

    Raises:
        NotDescribedError: they follow the length of the text.
    """
    rope_type = module.rope_type[kind] if kind else getattr(module, "rope_type", "default")
    if rope_type in ("longrope", "dynamic"):
        raise NotDescribedError(f"its rotations follow the length of the text ({rope_type})")
    prefix = f"{kind}_" if kind else ""
    frequencies: torch.Tensor = getattr(module, f"{prefix}inv_freq")
    return Rotation(frequencies.float(), getattr(module, f"{prefix}attention_scaling", 1.0))


def long_rotation(config: Any) -> Rotation:
    """Return the angles of "longrope": those of short texts, and those of texts beyond the original length."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    original = int(config.rope_parameters["original_max_position_embeddings"])
    angles = ROPE_INIT_FUNCTIONS["longrope"]
    short, scaling = angles(config, "cpu", seq_len=original)
    long, _ = angles(config, "cpu", seq_len=original + 1)
    return Rotation(short.float(), scaling, long.float(), original)


def decoder(
    model: Any,
    layers: Sequence[Layer],
    norm: Norm,
    *,
    rotations: Sequence[Rotation] | None = None,
    embedding_scale: float = 1.0,
    logit_scale: float = 1.0,
    logit_softcap: float | None = None,
    inputs: LayerInputs | None = None,
    streams: Streams | None = None,
    kv_heads: int | None = None,
) -> Decoder:
    """Describe a model with `embed_tokens`, `layers` and `rotary_emb` in its base model, and `lm_head`.

    `kv_heads` is for configurations that have several numbers of them.

    Raises:
        NotDescribedError: no layer has a `self_attn`.
    """
    base, config, head = model.base_model, model.config, model.lm_head
    if rotations is None and getattr(base.rotary_emb, "rope_type", None) == "longrope":
        rotations = [long_rotation(config)]
    attentions = [own for each in base.layers if (own := getattr(each, "self_attn", None)) is not None]
    if not attentions:
        raise NotDescribedError("none of its layers attends")
    first: nn.Module = attentions[0]
    head_dim = getattr(first, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Decoder(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads if kv_heads is None else kv_heads,
        head_dim=head_dim,
        embedding=base.embed_tokens,
        layers=layers,
        modules=list(base.layers),
        norm=norm,
        head=head,
        rotations=[rotation_of(base.rotary_emb)] if rotations is None else rotations,
        embedding_scale=embedding_scale,
        logit_scale=logit_scale,
        logit_softcap=logit_softcap,
        inputs=inputs,
        streams=streams,
    )
