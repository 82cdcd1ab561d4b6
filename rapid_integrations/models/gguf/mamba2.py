"""Layers of Mamba2 in GGUF files, and those of Granite 4 and Bamba, whose layers are attentions or a Mamba2.

llama.cpp's converter has the parts of Mamba2's first matrix in transformers' order: gates, values, keys, queries and
steps. The engine computes steps from inputs that are not rounded to eight bits, so their rows are a module of their
own here, and the others lie in its order. A layer is recurrent if it has no heads of keys.

Files call both families "granitehybrid". In Granite 4 no layer knows positions, an MLP's gates and what stands beside
them are two tensors of a file and one matrix of the model, and experts may stand beside the MLP. Bamba has positions
and none of Granite's factors. Of its queries and keys, the converter moves the rows of whole heads, of which only a
half is rotated, so that llama.cpp turns other pairs of numbers than the model. Here they are put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.models.gguf import shared_mlp
from rapid_integrations.models.gguf.architecture import (
    ATTENTION,
    GRANITE_FACTORS,
    LLAMA,
    NORMS_BEFORE,
    OUTER,
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


@dataclass(frozen=True)
class Parts:
    """What a family calls its Mamba2, and the numbers of it in a configuration."""

    module: str = "mamba"
    heads: str = "mamba_n_heads"
    groups: str = "mamba_n_groups"
    state: str = "mamba_d_state"
    head: str = "mamba_d_head"
    taps: str = "mamba_d_conv"


USUAL = Parts()
SSM = ("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size")
POSITIONS = "rope.scaling.finetuned"
"""Whether attentions know positions."""
_MIXERS = ATTENTION | NORMS_BEFORE | {"ssm_out": "mamba.out_proj"}
NAMES = _MIXERS | {f"ffn_{part}": module for part, module in shared_mlp.MLP.items()}
"""The modules of a layer of Granite 4 without experts, by what files call them, but for those of `part_of_layer`."""
WITH_EXPERTS = _MIXERS | shared_mlp.BESIDE_EXPERTS | {"ffn_gate_inp": "block_sparse_moe.router"}
OF_BAMBA = {name: module.replace("mlp.", "feed_forward.") for name, module in (LLAMA | _MIXERS).items()} | {
    "ffn_norm": "pre_ff_layernorm"
}
OUTER_OF_BAMBA = OUTER | {"output_norm": "model.final_layernorm"}
PLAIN = frozenset({"block_sparse_moe.router"})
KEYS_OF_BAMBA = frozenset({*SSM, POSITIONS})
KEYS = GRANITE_FACTORS | KEYS_OF_BAMBA | {"expert_shared_feed_forward_length"}


def mixers_of(told: Told, tensors: Tensors, parts: Parts = USUAL) -> dict[str, Any]:
    """Return what a configuration has of Mamba2.

    Raises:
        KeyError, TypeError: a number is left out, or contradicts another one.
    """
    taps, state, groups, heads, inner = (count(told, name) for name in SSM)
    if inner % heads or heads % groups:
        raise TypeError(f"{inner} numbers of {heads} heads in {groups} groups")
    return {
        parts.heads: heads,
        parts.groups: groups,
        parts.state: state,
        parts.head: inner // heads,
        parts.taps: taps,
        "mamba_conv_bias": any(name.endswith(".ssm_conv1d.bias") for name in tensors),
        "mamba_proj_bias": False,
    }


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration of Granite 4 has of attentions and of Mamba2, and the kind of each layer.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    if told.get(POSITIONS) is not False:  # llama.cpp turns queries and keys otherwise
        raise TypeError("attentions know positions")
    return (
        granite_factors(told)
        | whole_heads(told)
        | mixers_of(told, tensors)
        | {
            "layer_types": ["full_attention" if each else "linear_attention" for each in attends(told)],
            "position_embedding_type": None,
            "mamba_expand": _widened(told),
        }
    )


def numbers_of_bamba(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration of Bamba has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    if told.get(POSITIONS) is not True:
        raise TypeError("attentions know no positions")
    return (
        whole_heads(told)
        | mixers_of(told, tensors)
        | {
            "attn_layer_indices": [index for index, each in enumerate(attends(told)) if each],
            "mamba_expand": _widened(told),
            "attention_bias": False,
            "mlp_bias": False,
        }
    )


def _widened(told: Told) -> int:
    inner, width = count(told, "ssm.inner_size"), count(told, "embedding_length")
    if inner % width:
        raise TypeError(f"{inner} numbers of a Mamba2, and rows of {width}")
    return inner // width


def part_of_layer(
    parts: Parts,
    tensors: MappedTensors,
    name: str,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    in_blocks: bool,
) -> dict[str, Any] | None:
    """Return what a tensor holds of a Mamba2, by names within the layer; None for any other. See `PartOfLayer`."""
    _, _, part = name.split(".", 2)
    heads, groups, own = config[parts.heads], config[parts.groups], f"{parts.module}."
    inner, keys = heads * config[parts.head], groups * config[parts.state]
    channels = inner + 2 * keys
    read = partial(exact_numbers, tensors, name)
    if part == "ssm_a":
        return {f"{own}A_log": log_of_decays(tensors, name, (heads, 1))[:, 0]}
    if part == "ssm_d":
        return {f"{own}D": read((heads, 1))[:, 0]}
    if part == "ssm_dt.bias":
        return {f"{own}dt_bias": read((heads,))}
    if part == "ssm_norm.weight":
        return {f"{own}norm.weight": read((groups, inner // groups)).flatten().to(dtype)}
    if part == "ssm_conv1d.weight":
        return {f"{own}conv1d.weight": read((channels, config[parts.taps]))[:, None].contiguous()}
    if part == "ssm_conv1d.bias":
        return {f"{own}conv1d.bias": read((channels,))}
    if part != "ssm_in.weight":
        return None
    require_shape(tensors, name, (inner + channels + heads, config["hidden_size"]))
    rows = torch.arange(inner + channels + heads)
    gates, values, key, query, steps = torch.split(rows, [inner, inner, keys, keys, heads])
    both = {f"{own}in_proj_qkvz": torch.cat([query, key, values, gates]), f"{own}in_proj_dt": steps}
    found = matrices_of(tensors, name, both, dtype, in_blocks)
    weight = found[f"{own}in_proj_dt.weight"]
    if not isinstance(weight, Tensor):
        found[f"{own}in_proj_dt.weight"] = weight.dense().to(dtype)
    return found


def split(parts: Parts, model: Any) -> None:
    """Put modules for the parts of matrices into a model on no device, in the place of those for whole matrices."""
    for layer in model.base_model.layers:
        own: Any = getattr(layer, parts.module, None)
        if hasattr(own, "in_proj"):
            own.in_proj_qkvz = like(own.in_proj, own.in_proj.out_features - own.num_heads)
            own.in_proj_dt = like(own.in_proj, own.num_heads)
            del own.in_proj


def whole(parts: Parts, config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights, all of them numbers, under transformers' names, and in its order."""
    found = dict(weights)
    inner = config[parts.heads] * config[parts.head]
    keys = config[parts.groups] * config[parts.state]
    for index in range(config["num_hidden_layers"]):
        stem = f"model.layers.{index}.{parts.module}."
        if (held := take(found, stem, "in_proj_qkvz.weight", "in_proj_dt.weight")) is not None:
            query, key, values, gates = torch.split(held[0], [keys, keys, inner, inner])
            found[f"{stem}in_proj.weight"] = torch.cat([gates, values, key, query, held[1]])
    return found


def forms_of_mixers(parts: Parts) -> Forms:
    """Return the forms of a family whose only such layers are Mamba2's."""
    exact = ("A_log", "dt_bias", f"{parts.module}.D", "conv1d.weight", "conv1d.bias")
    return Forms(partial(part_of_layer, parts), exact, partial(split, parts), partial(whole, parts))


def _split_granite(model: Any) -> None:
    shared_mlp.split(model)
    split(USUAL, model)


def _whole_granite(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    return whole(USUAL, config, shared_mlp.whole(config, weights))


FORMS_OF_BAMBA = forms_of_mixers(USUAL)
FORMS = Forms(FORMS_OF_BAMBA.part_of_layer, FORMS_OF_BAMBA.exact, _split_granite, _whole_granite)
"""Of Granite 4, dense or with experts."""
