"""Cohere's Command R and Command A: LayerNorm without biases, attention and MLP beside each other, scaled logits."""

from __future__ import annotations

from typing import Any

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import Decoder, Layer
from rapid_integrations.models.families.parts import attention, decoder, gated_mlp, head_norms


def describe(model: Any) -> Decoder:
    """Describe a model."""
    config, base = model.config, model.base_model
    layers = []
    for each in base.layers:
        own, norm = each.self_attn, _norm(each.input_layernorm)
        window = getattr(own, "sliding_window", None)
        # The second generation rotates only the layers that have windows.
        rotated = not hasattr(own, "sliding_window") or window is not None
        layers.append(
            Layer(
                attention=attention(
                    own,
                    window=window,
                    norms=head_norms(own, _norm_of_heads),
                    rotation=0 if rotated else None,
                    interleaved=True,
                ),
                mlp=gated_mlp(each.mlp, config),
                before_attention=norm,
                before_mlp=norm,
                parallel=True,
            )
        )
    return decoder(model, layers, _norm(base.norm), logit_scale=float(config.logit_scale))


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon, centred=True)


def _norm_of_heads(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon, centred=True, scope="own head")


CLASSES = {"CohereForCausalLM": describe, "Cohere2ForCausalLM": describe}
