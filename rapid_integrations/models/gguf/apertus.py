"""GGUF files of Apertus, whose metadata has the numbers of its activation (xIELU), one for each layer or for all."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.models.gguf.architecture import (
    ATTENTION,
    HEAD_NORMS,
    MLP,
    Architecture,
    Tensors,
    Told,
    whole_heads,
)
from rapid_integrations.models.gguf.forms import Forms, no_part

_SHAPES: Mapping[str, tuple[int, ...]] = {"alpha_p": (1,), "alpha_n": (1,), "beta": (), "eps": ()}
_NAMES = (
    ATTENTION
    | HEAD_NORMS
    | {"attn_norm": "attention_layernorm", "ffn_norm": "feedforward_layernorm"}
    | {f"ffn_{part}": MLP[f"ffn_{part}"] for part in ("up", "down")}
)


def _numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    return {"hidden_act": "xielu", "attention_bias": "blk.0.attn_q.bias" in tensors} | whole_heads(told)


def activations_of(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the numbers of all layers' activations, float32, by transformers' names.

    Args:
        metadata: of the file.
        config: of the model.

    Returns:
        None if the file leaves a number out, or has something else.
    """
    layers, found = config["num_hidden_layers"], dict[str, Tensor]()
    for name, shape in _SHAPES.items():
        told = metadata.get(f"xielu.{name}")
        each = told if isinstance(told, list) else [told] * layers
        if len(each) != layers or not all(type(number) is float and isfinite(number) for number in each):
            return None
        for index, number in enumerate(each):
            found[f"model.layers.{index}.mlp.act_fn.{name}"] = torch.full(shape, number, dtype=torch.float32)
    return found


ARCHITECTURES = {
    "apertus": Architecture(
        "ApertusForCausalLM",
        "apertus",
        _numbers_of,
        _NAMES,
        forms=Forms(no_part, ("act_fn.alpha_p", "act_fn.alpha_n")),
        of_metadata=activations_of,
    ),
}
"""By the name that GGUF gives it."""
