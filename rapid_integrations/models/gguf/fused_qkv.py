"""Queries, keys and values in one tensor of a GGUF file, one behind the other, where the model has three matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rapid_integrations.models.gguf.architecture import QKV
from rapid_integrations.models.gguf.forms import Forms, matrices_of, require_shape
from rapid_integrations.models.gguf.tensors import MappedTensors


def part_of_layer(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return the matrices or biases that a tensor has; None for any other tensor. See `PartOfLayer`."""
    kind = {"attn_qkv.weight": "weight", "attn_qkv.bias": "bias"}.get(name.split(".", 2)[2])
    if kind is None:
        return None
    head_dim = config["head_dim"]
    widths = [head_dim * config[f"num_{heads}_heads"] for heads in ("attention", "key_value", "key_value")]
    require_shape(tensors, name, (sum(widths), config["hidden_size"]) if kind == "weight" else (sum(widths),))
    rows = dict(zip(QKV, torch.split(torch.arange(sum(widths)), widths), strict=True))
    if kind == "weight":
        return matrices_of(tensors, name, rows, dtype, in_blocks)
    numbers = tensors.numbers(name, dtype)
    return {f"{module}.bias": numbers[own] for module, own in rows.items()}


FORMS = Forms(part_of_layer, ())
"""Of families whose files have either."""
