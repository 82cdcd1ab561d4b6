"""GGUF files of Kimi Linear, whose layers are latent attentions without positions or delta nets with many decays.

llama.cpp's converter has three convolutions, of queries, keys and values, where the model has one, and decays that are
computed to the end. A layer has a delta net if it has no heads of keys. Experts are chosen by corrected sigmoids.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.gguf import latent
from rapid_integrations.models.gguf.architecture import Architecture, Tensors, Told
from rapid_integrations.models.gguf.forms import Forms, attends, count, exact_numbers
from rapid_integrations.models.gguf.tensors import MappedTensors

_SIGMOID = 2  # of `expert_gating_func`
_TAPS, _HEAD = "ssm.conv_kernel", "kda.head_dim"
_DENSE, _SHARED = "leading_dense_block_count", "expert_shared_count"
_RATES = {
    "ssm_beta": "self_attn.b_proj",
    "ssm_f_a": "self_attn.forget_gate.f_a_proj",
    "ssm_f_b": "self_attn.forget_gate.f_b_proj",
    "ssm_g_a": "self_attn.g_a_proj",
    "ssm_g_b": "self_attn.g_b_proj",
}
NAMES = (
    latent.NAMES | _RATES | {"attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "ssm_norm": "self_attn.o_norm"}
)
"""The modules of a layer, by what files call them, but for those of `part_of_layer`."""
PLAIN = latent.PLAIN | frozenset(_RATES.values())
"""Matrices of which decays, rates and gates are computed, and that behind the latent: they are never in blocks."""
KEYS = frozenset(
    {
        *("attention.q_lora_rank", "attention.kv_lora_rank", "attention.key_length_mla", "attention.value_length_mla"),
        *(_TAPS, _HEAD, _DENSE, _SHARED, "expert_gating_func", "expert_weights_scale", "expert_weights_norm"),
    }
)
_CONVOLUTIONS = tuple(f"ssm_conv1d_{each}.weight" for each in "qkv")


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    heads, dense = count(told, "attention.head_count"), told[_DENSE]
    if type(dense) is not int or not 0 <= dense < told["block_count"]:
        raise TypeError(f"{_DENSE} is {dense!r}")
    # llama.cpp divides by the sum of the weights of the experts that are taken; the file does not say it.
    if told["expert_gating_func"] != _SIGMOID or told.get("expert_weights_norm", True) is not True:
        raise TypeError("weights of experts are no sigmoids divided by their sum")
    value = {"attention.value_length": count(told, "attention.kv_lora_rank")}
    return {
        "num_key_value_heads": heads,
        "layer_types": ["full_attention" if each else "linear_attention" for each in attends(told)],
        "mlp_layer_types": ["dense" if index < dense else "sparse" for index in range(told["block_count"])],
        "linear_num_heads": heads,
        "linear_head_dim": count(told, _HEAD),
        "linear_conv_kernel_dim": count(told, _TAPS),
        "num_local_experts": told["expert_count"],
        "n_shared_experts": count(told, _SHARED),
        "moe_intermediate_size": count(told, "expert_feed_forward_length"),
        "intermediate_size": told["feed_forward_length"],
        "routed_scaling_factor": told.get("expert_weights_scale") or 1.0,
        "norm_topk_prob": True,
        "n_group": 1,
        "topk_group": 1,
        **latent.heads_of({**value, **told}),
    }


def part_of_layer(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return what a tensor holds of a delta net or of the matrix behind the latent; None for others.

    See `PartOfLayer`.
    """
    stem, part = name[: -len(name.split(".", 2)[2])], name.split(".", 2)[2]
    heads, taps = config["linear_num_heads"], config["linear_conv_kernel_dim"]
    width = heads * config["linear_head_dim"]
    if part == "ssm_a":
        decays = _of_shape(tensors, name, (1, 1, heads, 1))
        if not bool((decays < 0).all()):
            raise ModelLoadError(f"{tensors.path} could not be loaded: {name} has a number that is not below 0")
        return {"self_attn.forget_gate.A_log": (-decays).log()}
    if part == "ssm_dt.bias":
        return {"self_attn.forget_gate.dt_bias": exact_numbers(tensors, name, (width,))}
    if part in _CONVOLUTIONS:
        if part != _CONVOLUTIONS[0] or any(f"{stem}{each}" not in tensors.tensors for each in _CONVOLUTIONS):
            return {} if part != _CONVOLUTIONS[0] and f"{stem}{_CONVOLUTIONS[0]}" in tensors.tensors else None
        each = [_of_shape(tensors, f"{stem}{one}", (width, 1, taps)) for one in _CONVOLUTIONS]
        return {"self_attn.conv1d.weight": torch.cat(each)}
    return latent.part_of_layer(tensors, name, config, dtype, in_blocks)


def _of_shape(tensors: MappedTensors, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor in float32, whose file may have more dimensions of 1 than the model, or fewer.

    Raises:
        ModelLoadError: it has other numbers of numbers.
    """
    found = tuple(each for each in reversed(tensors.tensors[name].shape) if each != 1)
    if found != tuple(each for each in shape if each != 1) or prod(found) != prod(shape):
        raise ModelLoadError(
            f"{tensors.path} could not be loaded: its tensor {name} is {found}, and its metadata says {shape}; fetch "
            "it again, or convert it again with llama.cpp"
        )
    return tensors.numbers(name, torch.float32).reshape(shape)


ARCHITECTURES = {
    "kimi-linear": Architecture(
        "KimiLinearForCausalLM",
        "kimi_linear",
        numbers_of,
        NAMES,
        plain=PLAIN,
        experts="mlp.experts",
        keys=KEYS,
        forms=Forms(part_of_layer, ("A_log", "dt_bias", "conv1d.weight")),
        latent=True,
        some_attend=True,
    ),
}
"""By the name that GGUF gives it."""
