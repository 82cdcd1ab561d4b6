"""GGUF files of Granite 4, whose layers are attentions or a Mamba2, dense or with experts.

llama.cpp's converter has the parts of Mamba2's first matrix in transformers' order: gates, values, keys, queries and
steps. The engine computes steps from inputs that are not rounded to eight bits, so their rows are a module of their
own here, and the others lie in its order. An MLP's gates and what stands beside them are two tensors of a file and one
matrix of the model. A layer is recurrent if it has no heads of keys. No layer knows positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.models.gguf import shared_mlp
from rapid_integrations.models.gguf.architecture import (
    ATTENTION,
    GRANITE_FACTORS,
    NORMS_BEFORE,
    Tensors,
    Told,
    granite_factors,
    whole_heads,
)
from rapid_integrations.models.gguf.forms import (
    Forms,
    attends,
    count,
    exact_numbers,
    like,
    log_of_decays,
    matrices_of,
    require_shape,
    take,
)
from rapid_integrations.models.gguf.tensors import MappedTensors

_MIXERS = ATTENTION | NORMS_BEFORE | {"ssm_out": "mamba.out_proj"}
NAMES = _MIXERS | {f"ffn_{part}": module for part, module in shared_mlp.MLP.items()}
"""The modules of a layer without experts, by what files call them, but for those of `part_of_layer`."""
WITH_EXPERTS = _MIXERS | shared_mlp.BESIDE_EXPERTS | {"ffn_gate_inp": "block_sparse_moe.router"}
PLAIN = frozenset({"block_sparse_moe.router"})
KEYS = GRANITE_FACTORS | {
    *("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size"),
    *("rope.scaling.finetuned", "expert_shared_feed_forward_length"),
}
_MAMBA = "mamba."


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has of attentions and of Mamba2, and the kind of each layer.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    names = ("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size")
    taps, state, groups, heads, inner = (count(told, name) for name in names)
    width = count(told, "embedding_length")
    if inner % heads or heads % groups or inner % width:
        raise TypeError(f"{inner} numbers of {heads} heads in {groups} groups, and rows of {width}")
    if told.get("rope.scaling.finetuned") is not False:  # llama.cpp turns queries and keys otherwise
        raise TypeError("attentions know positions")
    return (
        granite_factors(told)
        | whole_heads(told)
        | {
            "layer_types": ["full_attention" if each else "linear_attention" for each in attends(told)],
            "position_embedding_type": None,
            "mamba_n_heads": heads,
            "mamba_n_groups": groups,
            "mamba_d_state": state,
            "mamba_d_head": inner // heads,
            "mamba_d_conv": taps,
            "mamba_expand": inner // width,
            "mamba_conv_bias": any(name.endswith(".ssm_conv1d.bias") for name in tensors),
            "mamba_proj_bias": False,
        }
    )


def part_of_layer(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return what a tensor holds of a Mamba2, by names within the layer; None for any other. See `PartOfLayer`."""
    _, _, part = name.split(".", 2)
    heads, groups = config["mamba_n_heads"], config["mamba_n_groups"]
    inner, keys = heads * config["mamba_d_head"], groups * config["mamba_d_state"]
    channels = inner + 2 * keys
    read = partial(exact_numbers, tensors, name)
    if part == "ssm_a":
        return {f"{_MAMBA}A_log": log_of_decays(tensors, name, (heads, 1))[:, 0]}
    if part == "ssm_d":
        return {f"{_MAMBA}D": read((heads, 1))[:, 0]}
    if part == "ssm_dt.bias":
        return {f"{_MAMBA}dt_bias": read((heads,))}
    if part == "ssm_norm.weight":
        return {f"{_MAMBA}norm.weight": read((groups, inner // groups)).flatten().to(dtype)}
    if part == "ssm_conv1d.weight":
        return {f"{_MAMBA}conv1d.weight": read((channels, config["mamba_d_conv"]))[:, None].contiguous()}
    if part == "ssm_conv1d.bias":
        return {f"{_MAMBA}conv1d.bias": read((channels,))}
    if part != "ssm_in.weight":
        return None
    require_shape(tensors, name, (inner + channels + heads, config["hidden_size"]))
    rows = torch.arange(inner + channels + heads)
    gates, values, key, query, steps = torch.split(rows, [inner, inner, keys, keys, heads])
    both = {f"{_MAMBA}in_proj_qkvz": torch.cat([query, key, values, gates]), f"{_MAMBA}in_proj_dt": steps}
    found = matrices_of(tensors, name, both, dtype, in_blocks)
    weight = found[f"{_MAMBA}in_proj_dt.weight"]
    if not isinstance(weight, Tensor):
        found[f"{_MAMBA}in_proj_dt.weight"] = weight.dense().to(dtype)
    return found


def split(model: Any) -> None:
    """Put modules for the parts of matrices into a model on no device, in the place of those for whole matrices."""
    shared_mlp.split(model)
    for layer in model.base_model.layers:
        if (own := layer.mamba) is not None:
            own.in_proj_qkvz = like(own.in_proj, own.in_proj.out_features - own.num_heads)
            own.in_proj_dt = like(own.in_proj, own.num_heads)
            del own.in_proj


def whole(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights, all of them numbers, under transformers' names, and in its order."""
    found = shared_mlp.whole(config, weights)
    inner = config["mamba_n_heads"] * config["mamba_d_head"]
    keys = config["mamba_n_groups"] * config["mamba_d_state"]
    for index in range(config["num_hidden_layers"]):
        stem = f"model.layers.{index}."
        if (parts := take(found, f"{stem}{_MAMBA}", "in_proj_qkvz.weight", "in_proj_dt.weight")) is not None:
            query, key, values, gates = torch.split(parts[0], [keys, keys, inner, inner])
            found[f"{stem}{_MAMBA}in_proj.weight"] = torch.cat([gates, values, key, query, parts[1]])
    return found


FORMS = Forms(part_of_layer, ("A_log", "dt_bias", "mamba.D", "conv1d.weight", "conv1d.bias"), split, whole)
"""Of dense models and of those with experts."""
