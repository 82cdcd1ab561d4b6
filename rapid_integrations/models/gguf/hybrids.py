"""GGUF files of Qwen3-Next and Qwen3.5, whose layers are attentions or gated delta nets.

A matrix whose rows are taken in parts is a module for each part here (`split`): files have some of these parts as
tensors of their own, in other formats, and rows of blocks are put in order on the way into the panels.

llama.cpp's converter tiles the heads of Qwen3.5's values: those of a key head lie H_k heads apart. They stay so,
because columns of the output matrix can't be moved within blocks (`Recurrence.tiled`). `whole` moves numbers back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.gguf.tensors import MappedTensors
from rapid_integrations.models.stored_model import stored_model

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
_HYBRIDS = _TILED | {"qwen3_next"}
_EVERY = 4  # the last of so many layers attends, if the file says nothing else
_LINEAR, _FULL = "linear_attention", "full_attention"
_RECURRENCE, _ATTENTION = "linear_attn.", "self_attn."
_EXACT = ("A_log", "dt_bias")  # float32 in files, and in kernels


def is_hybrid(config: Mapping[str, Any]) -> bool:
    """Return whether a model, by its configuration, is one of these families."""
    return config["model_type"] in _HYBRIDS


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
    taps, key_dim, key_heads, value_heads, width = (_count(told, name) for name in names)
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


def _count(told: Mapping[str, Any], key: str) -> int:
    value = told[key]
    if type(value) is not int or value <= 0:
        raise TypeError(f"{key} is {value!r}")
    return value


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
    count = told["block_count"]
    recurrent = told.get("attention.recurrent_layers")
    if recurrent is None:
        every = told.get("full_attention_interval", _EVERY)
        if type(every) is not int or every <= 0:
            raise TypeError(f"full_attention_interval is {every!r}")
        recurrent = [(index + 1) % every != 0 for index in range(count)]
    if not isinstance(recurrent, list) or len(recurrent) != count or {type(each) for each in recurrent} != {bool}:
        raise TypeError(f"attention.recurrent_layers is {recurrent!r}")
    kinds = [_LINEAR if each else _FULL for each in recurrent]
    kinds = kinds[: count - told.get("nextn_predict_layers", 0)]
    if _FULL not in kinds:
        raise TypeError("no layer attends")
    return kinds


# --- weights ------------------------------------------------------------------------------------------------------


class SomeRows(StoredBlocks):
    """Some rows of a weight in blocks, as a weight of their own. They are copied each time that they are asked for."""

    _own: tuple[StoredBlocks, Tensor]

    def __init__(self, of: StoredBlocks, rows: Tensor) -> None:
        for key, value in {"form": of.form, "order": None, "release": of.release, "_own": (of, rows)}.items():
            object.__setattr__(self, key, value)

    @property
    def raw(self) -> Tensor:
        """(o, bytes of a row) uint8."""
        of, rows = self._own
        return of.raw[rows]

    @property
    def shape(self) -> tuple[int, int]:
        """(o, K)."""
        of, rows = self._own
        return len(rows), of.shape[1]


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
    read = partial(_numbers, tensors, name)
    if part == "ssm_a":
        decay = read((value_heads,))
        if not bool((decay < 0).all()):
            raise ModelLoadError(
                f"{tensors.path} could not be loaded: {name} has a number that is not below 0, and a state would grow "
                "without end; fetch the file again"
            )
        return {f"{_RECURRENCE}A_log": (-decay).log()}
    if part == "ssm_dt.bias":
        return {f"{_RECURRENCE}dt_bias": read((value_heads,))}
    if part == "ssm_norm.weight":  # the only norm that nothing is added to
        return {f"{_RECURRENCE}norm.weight": read((config["linear_value_head_dim"],)).to(dtype)}
    if part == "ssm_conv1d.weight":
        found = read((2 * keys + values, config["linear_conv_kernel_dim"]))
        return {f"{_RECURRENCE}conv1d.weight": found[:, None].contiguous()}
    rows = _rows_of(part.removesuffix(".weight"), config)
    if rows is None or not part.endswith(".weight"):
        return None
    expected = config["hidden_size"], sum(len(each) for each in rows.values())
    if tensors.tensors[name].shape != expected:
        raise _another_shape(tensors, name, expected)
    plain = any(each in PLAIN for each in rows)
    blocks = tensors.blocks(name) if in_blocks and not plain else None
    if blocks is not None:
        return {f"{module}.weight": SomeRows(blocks, own) for module, own in rows.items()}
    numbers = tensors.numbers(name, dtype)
    return {f"{module}.weight": numbers[own] for module, own in rows.items()}


def _rows_of(part: str, config: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return which rows of a tensor belong to which module."""
    if part == "attn_q":  # each head's query has a gate behind it
        return _by_part(
            {"q_proj": config["head_dim"], "gate_proj": config["head_dim"]}, config["num_attention_heads"], _ATTENTION
        )
    if config["model_type"] in _TILED:
        return None
    heads, served = config["linear_num_key_heads"], _served(config)
    key, value = config["linear_key_head_dim"], config["linear_value_head_dim"] * served
    if part == "ssm_ba":
        return _by_part({"in_proj_b": served, "in_proj_a": served}, heads, _RECURRENCE)
    if part == "ssm_in":  # of earlier converters
        parts = _by_part({"q": key, "k": key, "v": value, "z": value}, heads, "")
        qkv = torch.cat([parts["q"], parts["k"], parts["v"]])
        return {f"{_RECURRENCE}in_proj_qkv": qkv, f"{_RECURRENCE}in_proj_z": parts["z"]}
    return None


def _by_part(widths: Mapping[str, int], heads: int, prefix: str) -> dict[str, Tensor]:
    """Return the rows of each part of a matrix that has all parts of a head, in these widths, one behind the other."""
    every = torch.split(torch.arange(heads * sum(widths.values())).view(heads, -1), list(widths.values()), dim=1)
    return {f"{prefix}{name}": rows.flatten() for name, rows in zip(widths, every, strict=True)}


def _numbers(tensors: MappedTensors, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor in float32 that has to have a shape."""
    if tuple(reversed(tensors.tensors[name].shape)) != shape:
        raise _another_shape(tensors, name, tuple(reversed(shape)))
    return tensors.numbers(name, torch.float32)


def _another_shape(tensors: MappedTensors, name: str, expected: tuple[int, ...]) -> ModelLoadError:
    found = " x ".join(str(each) for each in tensors.tensors[name].shape)
    return ModelLoadError(
        f"{tensors.path} could not be loaded: its tensor {name} is {found}, and its metadata says "
        f"{' x '.join(str(each) for each in expected)}; fetch it again, or convert it again with llama.cpp"
    )


def _served(config: Mapping[str, Any]) -> int:
    served: int = config["linear_num_value_heads"] // config["linear_num_key_heads"]
    return served


# --- models -------------------------------------------------------------------------------------------------------


def hybrid_model(config: Mapping[str, Any], weights: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """Return a model with these weights, whose modules are those of `split`.

    Its convolutions and what decays are computed from are float32, as in the file.

    Raises:
        ValueError, NotDescribedError: see `stored_model`.
    """
    model = stored_model(config, weights, dtype, partial(split, tiled=config["model_type"] in _TILED))
    for index, layer in enumerate(model.base_model.layers):
        for owner, kind, name in _exact(layer, index):
            setattr(owner, kind, nn.Parameter(weights[name].float(), requires_grad=False))
    return model


def _exact(layer: Any, index: int) -> list[tuple[Any, str, str]]:
    """Return what a layer holds in float32: module, kind and name."""
    own, stem = getattr(layer, "linear_attn", None), f"model.layers.{index}.{_RECURRENCE}"
    if own is None:
        return []
    return [*((own, kind, f"{stem}{kind}") for kind in _EXACT), (own.conv1d, "weight", f"{stem}conv1d.weight")]


def split(model: Any, *, tiled: bool) -> None:
    """Put modules for the parts of matrices into a model on no device, in the place of those for whole matrices.

    Args:
        model: transformers' own.
        tiled: whether the heads of values lie as llama.cpp's converter tiles them.
    """
    for layer in model.base_model.layers:
        if hasattr(layer, "self_attn"):
            own = layer.self_attn
            whole = own.q_proj
            own.q_proj, own.gate_proj = (_like(whole, whole.out_features // 2) for _ in range(2))
            continue
        own = layer.linear_attn
        own.tiled = tiled
        if not hasattr(own, "in_proj_qkvz"):
            continue
        values = own.num_v_heads * own.head_v_dim
        own.in_proj_qkv = _like(own.in_proj_qkvz, own.in_proj_qkvz.out_features - values)
        own.in_proj_z = _like(own.in_proj_qkvz, values)
        own.in_proj_b, own.in_proj_a = (_like(own.in_proj_ba, own.num_v_heads) for _ in range(2))
        del own.in_proj_qkvz, own.in_proj_ba


def _like(linear: Any, rows: int) -> nn.Linear:
    weight = linear.weight
    return nn.Linear(linear.in_features, rows, bias=False, dtype=weight.dtype, device=weight.device)


def whole(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights, all of them numbers, under transformers' names, and in its order."""
    found = dict(weights)
    for index, kind in enumerate(config["layer_types"]):
        stem = f"model.layers.{index}."
        if kind == _FULL:
            heads, head_dim = config["num_attention_heads"], config["head_dim"]
            parts = _take(found, f"{stem}{_ATTENTION}", "q_proj.weight", "gate_proj.weight")
            if parts is not None:
                found[f"{stem}{_ATTENTION}q_proj.weight"] = _joined(parts, (head_dim, head_dim), heads)
        elif config["model_type"] in _TILED:
            _grouped(config, found, f"{stem}{_RECURRENCE}")
        else:
            _fused(config, found, f"{stem}{_RECURRENCE}")
    return found


def _take(weights: dict[str, Any], stem: str, *names: str) -> list[Tensor] | None:
    """Take weights out; None if one is not there, which is said where all names are compared."""
    if not all(f"{stem}{name}" in weights for name in names):
        return None
    return [weights.pop(f"{stem}{name}") for name in names]


def _joined(parts: list[Tensor], widths: tuple[int, ...], heads: int) -> Tensor:
    """Return one matrix that has all parts of a head, in these widths, one behind the other."""
    return torch.cat([part.view(heads, width, -1) for part, width in zip(parts, widths, strict=True)], dim=1).flatten(
        0, 1
    )


def _fused(config: Mapping[str, Any], weights: dict[str, Any], stem: str) -> None:
    """Join what Qwen3-Next has in one matrix."""
    heads, served = config["linear_num_key_heads"], _served(config)
    key, value = config["linear_key_head_dim"], config["linear_value_head_dim"] * served
    if (found := _take(weights, stem, "in_proj_qkv.weight", "in_proj_z.weight")) is not None:
        qkv, gates = found
        parts = [*torch.split(qkv, [heads * key, heads * key, heads * value]), gates]
        weights[f"{stem}in_proj_qkvz.weight"] = _joined(parts, (key, key, value, value), heads)
    if (found := _take(weights, stem, "in_proj_b.weight", "in_proj_a.weight")) is not None:
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
