"""OPT: learned positions, LayerNorm and biases everywhere, and an MLP without a gate."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Attention, Decoder, Layer, Mlp, NotDescribedError, Positions
from rapid_integrations.models.families.learned_positions import decoder_with_positions
from rapid_integrations.models.families.parts import activation, layer_norm


def describe(model: Any) -> Decoder:
    """Describe a model."""
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
    norm = layer_norm(base.final_layer_norm)
    return decoder_with_positions(model, layers, base.layers, norm, base.embed_tokens, positions)


CLASSES = {"OPTForCausalLM": describe}
