"""GGUF files of Qwen3-Next and Qwen3.5, whose layers are attentions or gated delta nets.

llama.cpp's converter tiles the heads of Qwen3.5's values: those of a key head lie H_k heads apart. They stay so,
because columns of the output matrix can't be moved within blocks (`Recurrence.tiled`). `whole` moves numbers back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.models.gguf.forms import (
    Forms,
    count,
    exact_numbers,
    like,
    log_of_decays,
    matrices_of,
    require_shape,
    take,
)
from rapid_integrations.models.gguf.tensors import MappedTensors

NAMES = {
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "attn_qkv": "linear_attn.in_proj_qkv",
    "attn_gate": "linear_attn.in_proj_z",
    "ssm_beta": "linear_attn.in_proj_b",
    "ssm_alpha": "linear_attn.in_proj_a",
    "ssm_out": "linear_attn.out_proj",
}
"""The modules of a layer, by what files call them, but for those of `part_of_layer`."""
PLAIN = frozenset({"linear_attn.in_proj_b", "linear_attn.in_proj_a"})
"""Matrices of which decays and rates are computed: they are never in blocks."""
KEYS = frozenset(
    {
        *("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size"),
        *("full_attention_interval", "attention.recurrent_layers", "rope.dimension_sections"),
        "nextn_predict_layers",
    }
)
_TILED = frozenset({"qwen3_5_text", "qwen3_5_moe_text"})
_EVERY = 4  # the last of so many layers attends, if the file says nothing else
_LINEAR, _FULL = "linear_attention", "full_attention"
_RECURRENCE, _ATTENTION = "linear_attn.", "self_attn."


# --- what files say -----------------------------------------------------------------------------------------------


def numbers_of(told: Mapping[str, Any], *, sections: bool) -> dict[str, Any]:
    """Return what a configuration has of recurrences, and the kind of each layer.

    Args:
        told: what the file says of its model, by names without the architecture's prefix.
        sections: whether the rotated numbers of a head are divided between three positions, which differ in pictures.
            They are the same in text.

    Raises:
        KeyError, TypeError: a number is left out, or contradicts another one.
    """
    names = ("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size")
    taps, key_dim, key_heads, value_heads, width = (count(told, name) for name in names)
    if value_heads % key_heads or width % value_heads:
        raise TypeError(f"{value_heads} heads of values, {key_heads} of keys, and {width} numbers")
    head_dim = told.get("attention.key_length", told["embedding_length"] // told["attention.head_count"])
    turned = told.get("rope.dimension_count", head_dim)
    if (
        type(turned) is not int
        or not 0 < turned <= head_dim
        or turned % 2
        or int(head_dim * (turned / head_dim)) != turned
    ):
        raise TypeError(f"{turned!r} of {head_dim} numbers are rotated")
    if sections:
        _check_sections(told["rope.dimension_sections"], turned // 2)
    elif "rope.dimension_sections" in told:
        raise TypeError("a family without pictures has sections of rotated numbers")
    return {
        "layer_types": _layer_types(told),
        "linear_conv_kernel_dim": taps,
        "linear_key_head_dim": key_dim,
        "linear_value_head_dim": width // value_heads,
        "linear_num_key_heads": key_heads,
        "linear_num_value_heads": value_heads,
        "attention_bias": False,
    }


def _check_sections(sections: Any, pairs: int) -> None:
    """Refuse sections that leave some pairs to a fourth position, with which llama.cpp does not turn them at all.

    Raises:
        TypeError: they do, or are no list of numbers.
    """
    if not isinstance(sections, list) or len(sections) not in (3, 4) or {type(each) for each in sections} != {int}:
        raise TypeError(f"rope.dimension_sections is {sections!r}")
    # Pairs take turns, and each of the three has so many of them at most.
    if sum(sections) != pairs or any(pair >= 3 * sections[pair % 3] for pair in range(pairs)):
        raise TypeError(f"rope.dimension_sections is {sections!r}, of {pairs} pairs")


def _layer_types(told: Mapping[str, Any]) -> list[str]:
    layers = told["block_count"]
    recurrent = told.get("attention.recurrent_layers")
    if recurrent is None:
        every = told.get("full_attention_interval", _EVERY)
        if type(every) is not int or every <= 0:
            raise TypeError(f"full_attention_interval is {every!r}")
        recurrent = [(index + 1) % every != 0 for index in range(layers)]
    if not isinstance(recurrent, list) or len(recurrent) != layers or {type(each) for each in recurrent} != {bool}:
        raise TypeError(f"attention.recurrent_layers is {recurrent!r}")
    kinds = [_LINEAR if each else _FULL for each in recurrent]
    kinds = kinds[: layers - told.get("nextn_predict_layers", 0)]
    if _FULL not in kinds:
        raise TypeError("no layer attends")
    return kinds


# --- weights ------------------------------------------------------------------------------------------------------


def part_of_layer(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return the weights that a tensor holds, by names within their layer; None if it is one of `NAMES` or unknown.

    Args:
        tensors: of the files.
        name: of the tensor, "blk.N.…".
        config: of the model.
        dtype: of matrices that are not kept in blocks.
        in_blocks: False dequantises everything.

    Raises:
        ModelLoadError: a tensor has another shape than the metadata says, or its numbers are none of this family.
    """
    _, _, part = name.split(".", 2)
    value_heads = config["linear_num_value_heads"]
    keys, values = (config[f"linear_num_{each}_heads"] * config[f"linear_{each}_head_dim"] for each in ("key", "value"))
    read = partial(exact_numbers, tensors, name)
    if part == "ssm_a":
        return {f"{_RECURRENCE}A_log": log_of_decays(tensors, name, (value_heads,))}
    if part == "ssm_dt.bias":
        return {f"{_RECURRENCE}dt_bias": read((value_heads,))}
    if part == "ssm_norm.weight":  # the only norm that nothing is added to
        return {f"{_RECURRENCE}norm.weight": read((config["linear_value_head_dim"],)).to(dtype)}
    if part == "ssm_conv1d.weight":
        found = read((2 * keys + values, config["linear_conv_kernel_dim"]))
        return {f"{_RECURRENCE}conv1d.weight": found[:, None].contiguous()}
    found_parts = _parts_of(part.removesuffix(".weight"), config) if part.endswith(".weight") else None
    if found_parts is None:
        return None
    heads, widths = found_parts
    require_shape(tensors, name, (heads * sum(widths.values()), config["hidden_size"]))
    rows = _rows_of(heads, widths)
    if "queries" in rows:  # of earlier converters
        rows = {
            f"{_RECURRENCE}in_proj_qkv": torch.cat([rows["queries"], rows["keys"], rows["values"]]),
            f"{_RECURRENCE}in_proj_z": rows["gates"],
        }
    return matrices_of(tensors, name, rows, dtype, in_blocks and not any(each in PLAIN for each in rows))


def _parts_of(part: str, config: Mapping[str, Any]) -> tuple[int, dict[str, int]] | None:
    """Return how many heads a tensor has, and how many rows of each belong to which module."""
    if part == "attn_q":  # each head's query has a gate behind it
        own = dict.fromkeys((f"{_ATTENTION}q_proj", f"{_ATTENTION}gate_proj"), config["head_dim"])
        return config["num_attention_heads"], own
    if config["model_type"] in _TILED:
        return None
    heads, served = config["linear_num_key_heads"], _served(config)
    key, value = config["linear_key_head_dim"], config["linear_value_head_dim"] * served
    if part == "ssm_ba":
        return heads, dict.fromkeys((f"{_RECURRENCE}in_proj_b", f"{_RECURRENCE}in_proj_a"), served)
    if part == "ssm_in":
        return heads, {"queries": key, "keys": key, "values": value, "gates": value}
    return None


def _rows_of(heads: int, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the rows of each part of a matrix that has all parts of a head, in these widths, one behind the other."""
    every = torch.split(torch.arange(heads * sum(widths.values())).view(heads, -1), list(widths.values()), dim=1)
    return {name: rows.flatten() for name, rows in zip(widths, every, strict=True)}


def _served(config: Mapping[str, Any]) -> int:
    served: int = config["linear_num_value_heads"] // config["linear_num_key_heads"]
    return served


# --- models -------------------------------------------------------------------------------------------------------


def split(model: Any) -> None:
    """Put modules for the parts of matrices into a model on no device, in the place of those for whole matrices."""
    for layer in model.base_model.layers:
        if hasattr(layer, "self_attn"):
            own = layer.self_attn
            whole = own.q_proj
            own.q_proj, own.gate_proj = (like(whole, whole.out_features // 2) for _ in range(2))
            continue
        own = layer.linear_attn
        own.tiled = model.config.model_type in _TILED
        if not hasattr(own, "in_proj_qkvz"):
            continue
        values = own.num_v_heads * own.head_v_dim
        own.in_proj_qkv = like(own.in_proj_qkvz, own.in_proj_qkvz.out_features - values)
        own.in_proj_z = like(own.in_proj_qkvz, values)
        own.in_proj_b, own.in_proj_a = (like(own.in_proj_ba, own.num_v_heads) for _ in range(2))
        del own.in_proj_qkvz, own.in_proj_ba


def whole(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights, all of them numbers, under transformers' names, and in its order."""
    found = dict(weights)
    for index, kind in enumerate(config["layer_types"]):
        stem = f"model.layers.{index}."
        if kind == _FULL:
            heads, head_dim = config["num_attention_heads"], config["head_dim"]
            parts = take(found, f"{stem}{_ATTENTION}", "q_proj.weight", "gate_proj.weight")
            if parts is not None:
                found[f"{stem}{_ATTENTION}q_proj.weight"] = _joined(parts, (head_dim, head_dim), heads)
        elif config["model_type"] in _TILED:
            _grouped(config, found, f"{stem}{_RECURRENCE}")
        else:
            _fused(config, found, f"{stem}{_RECURRENCE}")
    return found


def _joined(parts: list[Tensor], widths: tuple[int, ...], heads: int) -> Tensor:
    """Return one matrix that has all parts of a head, in these widths, one behind the other."""
    return torch.cat([part.view(heads, width, -1) for part, width in zip(parts, widths, strict=True)], dim=1).flatten(
        0, 1
    )


def _fused(config: Mapping[str, Any], weights: dict[str, Any], stem: str) -> None:
    """Join what Qwen3-Next has in one matrix."""
    heads, served = config["linear_num_key_heads"], _served(config)
    key, value = config["linear_key_head_dim"], config["linear_value_head_dim"] * served
    if (found := take(weights, stem, "in_proj_qkv.weight", "in_proj_z.weight")) is not None:
        qkv, gates = found
        parts = [*torch.split(qkv, [heads * key, heads * key, heads * value]), gates]
        weights[f"{stem}in_proj_qkvz.weight"] = _joined(parts, (key, key, value, value), heads)
    if (found := take(weights, stem, "in_proj_b.weight", "in_proj_a.weight")) is not None:
        weights[f"{stem}in_proj_ba.weight"] = _joined(found, (served, served), heads)


def _grouped(config: Mapping[str, Any], weights: dict[str, Any], stem: str) -> None:
    """Put the heads of values that a key head serves beside each other."""
    heads, served, width = config["linear_num_key_heads"], _served(config), config["linear_value_head_dim"]
    order = torch.arange(heads * served).view(served, heads).t().flatten()
    rows = torch.arange(heads * served * width).view(-1, width)[order].flatten()
    values = 2 * heads * config["linear_key_head_dim"]
    behind_keys = torch.cat([torch.arange(values), values + rows])
    orders = {"A_log": order, "dt_bias": order, "in_proj_b.weight": order, "in_proj_a.weight": order}
    orders |= {"in_proj_z.weight": rows, "in_proj_qkv.weight": behind_keys, "conv1d.weight": behind_keys}
    for name, own in orders.items():
        if f"{stem}{name}" in weights:
            weights[f"{stem}{name}"] = weights[f"{stem}{name}"][own]
    if f"{stem}out_proj.weight" in weights:
        weights[f"{stem}out_proj.weight"] = weights[f"{stem}out_proj.weight"][:, rows].contiguous()


FORMS = Forms(part_of_layer, ("A_log", "dt_bias", "conv1d.weight"), split, whole)
"""Of all three families."""
