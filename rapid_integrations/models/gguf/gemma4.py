"""GGUF files of Gemma 4, dense or with experts beside an MLP.

Layers that see all keys have heads of another size, and in the large models other numbers of them. The last layers
read the keys of others; a file may have matrices for keys of their own, which nobody reads. A layer whose values are
its keys has no matrix of values. All norms are stored as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rapid_integrations.models.gguf.architecture import (
    ATTENTION,
    HEAD_NORMS,
    MLP,
    NORMS_AROUND,
    Tensors,
    Told,
)
from rapid_integrations.models.gguf.architecture import OUTER as USUAL
from rapid_integrations.models.gguf.forms import FULL, PATTERN, SLIDING, WINDOW, Forms, count, layer_types
from rapid_integrations.models.gguf.tensors import MappedTensors

_TABLE = "per_layer_token_embd"
OUTER = USUAL | {
    _TABLE: "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
}
NAMES = (
    ATTENTION
    | HEAD_NORMS
    | MLP
    | NORMS_AROUND
    | {
        "inp_gate": "per_layer_input_gate",
        "proj": "per_layer_projection",
        "post_norm": "post_per_layer_input_norm",
        "layer_output_scale.weight": "layer_scalar",
    }
)
"""The modules of a layer without experts, by what files call them."""
WITH_EXPERTS = NAMES | {
    "ffn_gate_inp": "router.proj",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "post_ffw_norm_1": "post_feedforward_layernorm_1",
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
    "post_ffw_norm_2": "post_feedforward_layernorm_2",
}
PLAIN = frozenset({"router.proj", "model.per_layer_model_projection"})
SHARED, _INPUTS, CAP = "attention.shared_kv_layers", "embedding_length_per_layer_input", "final_logit_softcapping"
KEYS = frozenset(
    {
        *(WINDOW, PATTERN, SHARED, _INPUTS, CAP, "rope.freq_base_swa", "rope.dimension_count_swa"),
        *("attention.key_length_swa", "attention.value_length_swa"),
    }
)
_OF_KEYS = ("attn_k.weight", "attn_v.weight", "attn_k_norm.weight")


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has beside what all have, without experts.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    kinds, shared = layer_types(told, None), told.get(SHARED, 0)
    if type(shared) is not int or not 0 <= shared < len(kinds):
        raise TypeError(f"{SHARED} is {shared!r}")
    own = kinds[: len(kinds) - shared]
    if set(own) != {FULL, SLIDING} or kinds[-1] != FULL:
        raise TypeError(f"{PATTERN} is {kinds!r}, of which {shared} read the keys of others")
    stretched = {key: value for key, value in told.items() if key.startswith("rope.scaling.")}
    if stretched not in ({}, {"rope.scaling.type": "none"}):
        raise TypeError(f"its angles are stretched: {stretched!r}")
    head_dim = count(told, "attention.key_length_swa")
    if any(told.get(key, head_dim) != head_dim for key in ("attention.value_length_swa", "rope.dimension_count_swa")):
        raise TypeError(f"values, or rotated parts, of heads are not of {head_dim} numbers")
    whole = {"rope_type": "proportional", "rope_theta": told["rope.freq_base"]}
    local = {"rope_type": "default", "rope_theta": told["rope.freq_base_swa"]}
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": head_dim,
        "global_head_dim": count(told, "attention.key_length"),
        "sliding_window": count(told, WINDOW),
        "layer_types": kinds,
        "num_kv_shared_layers": shared,
        "rope_parameters": {FULL: whole, SLIDING: local},
        "final_logit_softcapping": told.get(CAP) or None,
        "use_bidirectional_attention": None,
        "attention_bias": False,
        **_heads_of_keys(told, kinds, own, tensors),
        **_widths_of_mlps(told, shared),
        **inputs(told, tensors),
    }


def _heads_of_keys(told: Told, kinds: Sequence[str], own: Sequence[str], tensors: Tensors) -> dict[str, Any]:
    """Return how many heads of keys each kind of layers has, and whether values of those that see all keys are keys.

    Args:
        told: what the file says.
        kinds: of all layers.
        own: of those that have keys.
        tensors: of the file.

    Raises:
        KeyError, TypeError: layers of a kind differ.
    """
    stated = told["attention.head_count_kv"]
    each = stated if isinstance(stated, list) else [stated] * len(kinds)
    if len(each) != len(kinds) or {type(number) for number in each} != {int} or min(each) <= 0:
        raise TypeError(f"attention.head_count_kv is {stated!r}")
    numbers: dict[str, set[int]] = {FULL: set(), SLIDING: set()}
    for kind, number in zip(kinds, each, strict=True):
        numbers[kind].add(number)
    without = {f"blk.{index}.attn_v.weight" not in tensors for index, kind in enumerate(own) if kind == FULL}
    if {len(found) for found in numbers.values()} | {len(without)} != {1}:
        raise TypeError("layers of a kind have several numbers of heads, or values that are keys and others")
    (local,), (whole,), (equal,) = numbers[SLIDING], numbers[FULL], without
    if whole != local and not equal:
        raise TypeError(f"layers have {local} and {whole} heads of keys, and values of their own")
    return {"num_key_value_heads": local, "num_global_key_value_heads": whole, "attention_k_eq_v": equal}


def _widths_of_mlps(told: Told, shared: int) -> dict[str, Any]:
    """Return the width of MLPs, and whether it is twice that in the last layers, which read the keys of others.

    Raises:
        KeyError, TypeError: it is another one there, or differs before.
    """
    stated = told["feed_forward_length"]
    each = stated if isinstance(stated, list) else [stated] * told["block_count"]
    first = count({"feed_forward_length": each[0]}, "feed_forward_length") if each else 0
    last = each[-1] if each else 0
    if each != [first] * (told["block_count"] - shared) + [last] * shared or last not in (first, 2 * first):
        raise TypeError(f"feed_forward_length is {stated!r}")
    return {"intermediate_size": first, "use_double_wide_mlp": last != first}


def inputs(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return how many numbers the inputs of a layer are, 0 if there are none.

    Raises:
        KeyError, TypeError: that is left out, or their table is, or it has other tokens than the first one.
    """
    width = told[_INPUTS]
    if type(width) is not int or width < 0:
        raise TypeError(f"{_INPUTS} is {width!r}")
    tokens = tensors["token_embd.weight"].shape[-1]
    table = (width * told["block_count"], tokens)
    if width and tensors[f"{_TABLE}.weight"].shape != table:
        raise TypeError(f"{_TABLE} is {tensors[f'{_TABLE}.weight'].shape}, not {table}")
    return {"hidden_size_per_layer_input": width, "vocab_size_per_layer_input": tokens}


def part_of_layer(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return nothing of keys that no layer reads; None for any other tensor. See `PartOfLayer`."""
    _, number, part = name.split(".", 2)
    shares = int(number) >= config["num_hidden_layers"] - config["num_kv_shared_layers"]
    return {} if shares and part in _OF_KEYS else None


FORMS = Forms(part_of_layer, ())
"""Of dense models and of those with experts."""
