"""Phi-3.5-MoE: LayerNorm with biases, and two experts that a SparseMixer takes one after the other."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models.description import Decoder, Experts, NotDescribedError, Rotation, Stack
from rapid_integrations.models.families.parts import activation, attention, decoder, layer, layer_norm, rotation_of

_TAKEN = 2  # of every row, whatever the configuration says


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = [
        layer(
            each, attention(each.self_attn, window=config.sliding_window), _experts(each.mlp, config), norm=layer_norm
        )
        for each in base.layers
    ]
    return decoder(model, layers, layer_norm(base.norm), rotations=[_rotation(base.rotary_emb)])


def _experts(module: Any, config: Any) -> Experts:
    router = module.router
    return Experts(
        router=(router.weight, router.bias),
        routing=Routing(taken=_TAKEN, near=2 * float(router.router_jitter_noise)),
        gate_up=Stack(module.experts, "gate_up_proj"),
        down=Stack(module.experts, "down_proj"),
        activation=activation(config.hidden_act),
        inner=module.experts.intermediate_dim,
    )


def _rotation(module: Any) -> Rotation:
    """Describe its angles: those of short texts for all, times a factor that may follow a text's length.

    Raises:
        NotDescribedError: it does.
    """
    said = module.config.rope_parameters
    if said["rope_type"] == "default":
        return rotation_of(module)
    if said["short_mscale"] != said["long_mscale"]:
        raise NotDescribedError("a factor of its rotations follows the length of the text (short_mscale, long_mscale)")
    frequencies, _ = module.rope_init_fn(module.config)
    return Rotation(frequencies.float(), float(said["short_mscale"]))


CLASSES = {"PhimoeForCausalLM": describe}
