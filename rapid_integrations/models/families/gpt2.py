"""GPT-2: learned positions, LayerNorm and biases everywhere, an MLP without a gate, and matrices by columns."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import (
    Attention,
    Decoder,
    Layer,
    Mlp,
    NotDescribedError,
    Positions,
    Transposed,
)
from rapid_integrations.models.families.learned_positions import decoder_with_positions
from rapid_integrations.models.families.parts import activation, layer_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    if config.add_cross_attention:
        raise NotDescribedError("it attends to an encoder's states, too (add_cross_attention)")
    act = activation(config.activation_function)
    layers = [
        Layer(
            attention=Attention(
                (_by_rows(each.attn.c_attn),), _by_rows(each.attn.c_proj), each.attn.scaling, rotation=None
            ),
            mlp=Mlp((_by_rows(each.mlp.c_fc),), _by_rows(each.mlp.c_proj), act, gated=False),
            before_attention=layer_norm(each.ln_1),
            before_mlp=layer_norm(each.ln_2),
        )
        for each in base.h
    ]
    return decoder_with_positions(model, layers, base.h, layer_norm(base.ln_f), base.wte, Positions(base.wpe))


def _by_rows(module: Any) -> Transposed:
    if type(module).__name__ != "Conv1D":
        raise NotDescribedError(f"it has a {type(module).__name__} where a plain matrix is expected")
    return Transposed(module, module.nf, module.nx)


CLASSES = {"GPT2LMHeadModel": describe}
