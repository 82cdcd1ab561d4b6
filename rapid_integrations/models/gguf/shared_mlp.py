"""Granite's MLP beside experts in GGUF files: gates, and what stands beside them, are two tensors and one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rapid_integrations.models.gguf.forms import Forms, like, no_part, take

MLP = {"gate": "shared_mlp.gate_proj", "up": "shared_mlp.up_proj", "down": "shared_mlp.output_linear"}
"""Its modules, by what files call them."""
BESIDE_EXPERTS = {f"ffn_{part}_shexp": module for part, module in MLP.items()}


def split(model: Any) -> None:
    """Put modules for gates, and for what stands beside them, into a model on no device."""
    for layer in model.base_model.layers:
        mlp = layer.shared_mlp
        mlp.gate_proj, mlp.up_proj = (like(mlp.input_linear, mlp.hidden_size) for _ in range(2))
        del mlp.input_linear


def whole(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights, all of them numbers, under transformers' names."""
    found = dict(weights)
    for index in range(config["num_hidden_layers"]):
        stem = f"model.layers.{index}.shared_mlp."
        if (parts := take(found, stem, "gate_proj.weight", "up_proj.weight")) is not None:
            found[f"{stem}input_linear.weight"] = torch.cat(parts)
    return found


FORMS = Forms(no_part, (), split, whole)
"""Of models without other layers of such forms."""
