"""GGUF files of Mamba, Falcon-Mamba and Jamba.

llama.cpp's converter writes decays as they are, and convolutions without their middle dimension. What steps, keys and
queries are computed from is not rounded to eight bits here, so those matrices are never in blocks. Falcon-Mamba is a
file of Mamba that says that these three are normalised. A layer of Jamba is recurrent if it has no heads of keys. Files
of Jamba with experts are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from rapid_integrations.models.gguf.architecture import ATTENTION, OUTER, Tensors, Told, whole_heads
from rapid_integrations.models.gguf.forms import Forms, attends, count, exact_numbers, log_of_decays
from rapid_integrations.models.gguf.tensors import MappedTensors

NORMALISED = "ssm.dt_b_c_rms"
"""Whether a file of Mamba is one of Falcon-Mamba."""
_SSM = ("ssm.conv_kernel", "ssm.state_size", "ssm.inner_size", "ssm.time_step_rank")
KEYS = frozenset({*_SSM, NORMALISED})
EPSILON = ("attention.layer_norm_rms_epsilon", "layer_norm_epsilon")
_MATRICES = {"ssm_in": "in_proj", "ssm_x": "x_proj", "ssm_dt": "dt_proj", "ssm_out": "out_proj"}
NAMES = {"attn_norm": "norm"} | {name: f"mixer.{module}" for name, module in _MATRICES.items()}
MODULES_AROUND = {"token_embd": "backbone.embeddings", "output_norm": "backbone.norm_f", "output": "lm_head"}
OF_JAMBA = (
    ATTENTION
    | {"attn_norm": "input_layernorm", "ffn_norm": "pre_ff_layernorm"}
    | {f"ffn_{part}": f"feed_forward.{part}_proj" for part in ("gate", "up", "down")}
    | {name: f"mamba.{module}" for name, module in _MATRICES.items()}
    | {f"ssm_{part}_norm": f"mamba.{part}_layernorm" for part in ("dt", "b", "c")}
)
"""The modules of a layer of Jamba, by what files call them, but for those of `part_of_layer`."""
AROUND_JAMBA = OUTER | {"output_norm": "model.final_layernorm"}


def plain(module: str) -> frozenset[str]:
    """Return the matrices behind convolved values, which are never in blocks."""
    return frozenset({f"{module}.x_proj", f"{module}.dt_proj"})


def numbers_of(told: Told, tensors: Tensors, *, normalised: bool) -> dict[str, Any]:
    """Return what a configuration of Mamba or Falcon-Mamba has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    if told.get(NORMALISED, False) is not normalised:
        raise TypeError(f"{NORMALISED} is {told.get(NORMALISED)!r}")
    taps, state, inner, rank = (count(told, name) for name in _SSM)
    own = {
        "conv_kernel": taps,
        "state_size": state,
        "expand": _widened(told, inner),
        "time_step_rank": rank,
        "use_bias": False,
        "use_conv_bias": _convolutions_have_biases(tensors),
    }
    return own | ({"mixer_rms_eps": told[EPSILON[0]]} if normalised else {})


def numbers_of_jamba(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration of Jamba without experts has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    if told.get("expert_count", 0) > 1:
        raise TypeError("files with experts are not read")
    taps, state, inner, rank = (count(told, name) for name in _SSM)
    kinds = attends(told)
    places = [index for index, each in enumerate(kinds) if each]
    first, period = places[0], places[1] - places[0] if len(places) > 1 else len(kinds)
    if kinds != [index % period == first for index in range(len(kinds))]:
        raise TypeError(f"layers {places} attend")
    return whole_heads(told) | {
        "attn_layer_offset": first,
        "attn_layer_period": period,
        "num_experts": 1,
        "num_experts_per_tok": 0,
        "mamba_d_conv": taps,
        "mamba_d_state": state,
        "mamba_expand": _widened(told, inner),
        "mamba_dt_rank": rank,
        "mamba_conv_bias": _convolutions_have_biases(tensors),
        "mamba_proj_bias": False,
    }


def _widened(told: Told, inner: int) -> int:
    width = count(told, "embedding_length")
    if inner % width:
        raise TypeError(f"{inner} numbers of a Mamba, and rows of {width}")
    return inner // width


def _convolutions_have_biases(tensors: Tensors) -> bool:
    return any(name.endswith(".ssm_conv1d.bias") for name in tensors)


def part_of_layer(
    module: str,
    tensors: MappedTensors,
    name: str,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    in_blocks: bool,
) -> dict[str, Any] | None:
    """Return what a tensor holds of a Mamba, by names within the layer; None for any other. See `PartOfLayer`."""
    part = name.split(".", 2)[2]
    jamba = module == "mamba"
    inner = config["hidden_size"] * config["mamba_expand" if jamba else "expand"]
    state = config["mamba_d_state" if jamba else "state_size"]
    read = partial(exact_numbers, tensors, name)
    if part == "ssm_a":
        return {f"{module}.A_log": log_of_decays(tensors, name, (inner, state))}
    if part == "ssm_d":
        return {f"{module}.D": read((inner,))}
    if part == "ssm_dt.bias":
        return {f"{module}.dt_proj.bias": read((inner,))}
    if part == "ssm_conv1d.weight":
        taps = config["mamba_d_conv" if jamba else "conv_kernel"]
        return {f"{module}.conv1d.weight": read((inner, taps))[:, None].contiguous()}
    if part == "ssm_conv1d.bias":
        return {f"{module}.conv1d.bias": read((inner,))}
    return None


def forms(module: str) -> Forms:
    """Return the forms of a family whose layers call their Mamba so."""
    exact = ("A_log", f"{module}.D", "dt_proj.bias", "conv1d.weight", "conv1d.bias")
    return Forms(partial(part_of_layer, module), exact)
