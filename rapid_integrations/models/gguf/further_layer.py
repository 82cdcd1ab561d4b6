"""The layer of a GGUF file that predicts further tokens (GLM-4.5, and others of which a file has it), as a draft head.

It lies behind the model's own layers and has their tensors, and some of its own ("nextn"). It is dequantised, under the
names that safetensors have for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.gguf.architecture import Architecture
from rapid_integrations.models.gguf.description import architecture_of, configuration_of
from rapid_integrations.models.gguf.experts import STACKS
from rapid_integrations.models.gguf.parts import parts_of, read_parts
from rapid_integrations.models.gguf.tensors import MappedTensors

_OWN = {
    "nextn.eh_proj": "eh_proj",
    "nextn.enorm": "enorm",
    "nextn.hnorm": "hnorm",
    "nextn.embed_tokens": "embed_tokens",
    "nextn.shared_head_head": "shared_head.head",
    "nextn.shared_head_norm": "shared_head.norm",
}


def further_layer_of(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration of a model, under transformers' names, and the tensors of its first further layer.

    Args:
        path: a GGUF file, or any file of a model in several.

    Raises:
        ModelLoadError: the file is damaged, or has no such layer; UnsupportedModelError: it is not known here.
    """
    headers = read_parts(parts_of(path))
    architecture, config = architecture_of(headers[0]), configuration_of(headers)
    if architecture is None or config is None:
        raise UnsupportedModelError(
            f"draft_head={str(path)!r}: no further layer is read of GGUF files of {headers[0].architecture!r}, or the "
            "file says something that is not known here. Take the model's safetensors"
        )
    layer = config["num_hidden_layers"]
    mapped = MappedTensors(headers)
    found: dict[str, Tensor] = {}
    for name in mapped.names():
        if name.startswith(f"blk.{layer}."):
            found |= _named(mapped, name, architecture, f"model.layers.{layer}.")
    if f"model.layers.{layer}.eh_proj.weight" not in found:
        raise ModelLoadError(
            f"draft_head={str(path)!r} has no layer that predicts further tokens: converters leave it out of most "
            "models. Take the model's safetensors, or leave the head out"
        )
    return config, found


def _named(mapped: MappedTensors, name: str, architecture: Architecture, layer: str) -> dict[str, Tensor]:
    """Return what a tensor holds, under the names that safetensors have for it, in float32.

    Raises:
        UnsupportedModelError: it is not known.
    """
    stem, _, kind = name.split(".", 2)[2].rpartition(".")
    numbers = mapped.numbers(name, torch.float32)
    if stem in STACKS and architecture.experts and kind == "weight" and not stem.startswith("ffn_gate_up"):
        part = stem.removeprefix("ffn_").removesuffix("_exps")
        experts = f"{layer}{architecture.experts}"
        return {f"{experts}.{index}.{part}_proj.weight": matrix for index, matrix in enumerate(numbers)}
    if (one := architecture.names.get(f"{stem}.{kind}")) is not None:
        return {f"{layer}{one}": numbers}
    module = _OWN.get(stem) or architecture.names.get(stem)
    if module is None:
        raise UnsupportedModelError(
            f"draft_head={str(mapped.path)!r}: the further layer has a tensor that is not known here ({name}). Take "
            "the model's safetensors, or leave the head out"
        )
    return {f"{layer}{module}.{kind}": numbers}
