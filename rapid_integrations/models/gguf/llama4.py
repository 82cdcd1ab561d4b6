"""GGUF files of Llama 4: chunks, layers without rotation whose queries grow, experts in some layers.

A file says neither the length of chunks, nor which layers are not rotated, nor how queries grow: llama.cpp takes the
numbers of the published models for granted. It decides by the number of experts whether queries and keys are
normalised, as the smaller model has it and the larger one does not.
"""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.gguf.architecture import ATTENTION, NORMS_BEFORE, Architecture, Tensors, Told
from rapid_integrations.models.gguf.forms import FULL, count

_CHUNK = 8192
_UNROTATED = 4  # the last of so many layers
_GROWS_BY = 0.1
_EXPERTS_OF_THE_LARGER = 128
_EVERY = "interleave_moe_layer_step"
_PARTS = ("gate", "up", "down")
NAMES = (
    ATTENTION
    | NORMS_BEFORE
    | {"ffn_gate_inp": "feed_forward.router"}
    | {f"ffn_{part}": f"feed_forward.{part}_proj" for part in _PARTS}
    | {f"ffn_{part}_shexp": f"feed_forward.shared_expert.{part}_proj" for part in _PARTS}
)
"""The modules of a layer, by what files call them."""


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, or contradicts another one.
    """
    layers, every = told["block_count"], count(told, _EVERY)
    if every > layers:
        raise TypeError(f"{_EVERY} is {every}, of {layers} layers")
    rotated = [(index + 1) % _UNROTATED != 0 for index in range(layers)]
    return {
        "num_local_experts": told["expert_count"],
        "intermediate_size": count(told, "expert_feed_forward_length"),
        "intermediate_size_mlp": count(told, "feed_forward_length"),
        "moe_layers": list(range(every - 1, layers, every)),
        "use_qk_norm": told["expert_count"] != _EXPERTS_OF_THE_LARGER,
        "no_rope_layers": [int(each) for each in rotated],
        "layer_types": ["chunked_attention" if each else FULL for each in rotated],
        "attention_chunk_size": _CHUNK,
        "attn_temperature_tuning": True,
        "floor_scale": _CHUNK,
        "attn_scale": _GROWS_BY,
        "attention_bias": False,
    }


ARCHITECTURES = {
    "llama4": Architecture(
        "Llama4ForCausalLM",
        "llama4_text",
        numbers_of,
        NAMES,
        plain=frozenset({"feed_forward.router"}),
        experts="feed_forward.experts",
        keys=frozenset({_EVERY}),
    ),
}
"""By the name that GGUF gives it."""
