"""GPT-2 and OPT: learned positions, LayerNorm and biases everywhere, and an MLP without a gate."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import (
    Attention,
    Decoder,
    Layer,
    Mlp,
    NotDescribedError,
    Positions,
    Transposed,
)
from rapid_integrations.models.families.parts import activation, layer_norm


def describe(model: Any) -> Decoder:
    """Describe GPT-2, whose matrices lie by columns."""
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
    return _decoder(model, layers, base.h, layer_norm(base.ln_f), base.wte, Positions(base.wpe))


def describe_opt(model: Any) -> Decoder:
    """Describe OPT."""
    config, base = model.config, model.base_model.decoder
    if not config.do_layer_norm_before or base.final_layer_norm is None:
        raise NotDescribedError("its norms stand behind what is added, and so in the sum (do_layer_norm_before)")
    if base.project_in is not None:
        raise NotDescribedError("its embedding has another width than its layers (word_embed_proj_dim)")
    layers = []
    for each in base.layers:
        own = each.self_attn
        layers.append(
            Layer(
                attention=Attention((own.q_proj, own.k_proj, own.v_proj), own.out_proj, own.scaling, rotation=None),
                mlp=Mlp((each.fc1,), each.fc2, activation(config.activation_function), gated=False),
                before_attention=layer_norm(each.self_attn_layer_norm),
                before_mlp=layer_norm(each.final_layer_norm),
            )
        )
    positions = Positions(base.embed_positions, base.embed_positions.offset)
    return _decoder(model, layers, base.layers, layer_norm(base.final_layer_norm), base.embed_tokens, positions)


def _by_rows(module: Any) -> Transposed:
    if type(module).__name__ != "Conv1D":
        raise NotDescribedError(f"it has a {type(module).__name__} where a plain matrix is expected")
    return Transposed(module, module.nf, module.nx)


def _decoder(
    model: Any, layers: list[Layer], modules: Any, norm: Norm, embedding: torch.nn.Module, positions: Positions
) -> Decoder:
    config = model.config
    return Decoder(
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        embedding=embedding,
        layers=layers,
        modules=list(modules),
        norm=norm,
        head=model.lm_head,
        rotations=[],
        positions=positions,
    )


CLASSES = {"GPT2LMHeadModel": describe, "OPTForCausalLM": describe_opt}
