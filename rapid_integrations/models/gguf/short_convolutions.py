"""GGUF files of LFM2, whose layers are attentions or gated short convolutions, dense or with experts.

llama.cpp's converter takes a dimension from the convolutions and calls the last norm one of the embeddings. A layer
convolves if it has no heads of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rapid_integrations.models.gguf.architecture import HEAD_NORMS, QKV
from rapid_integrations.models.gguf.forms import Forms, attends, count, exact_numbers
from rapid_integrations.models.gguf.tensors import MappedTensors

OUTER = {"token_embd": "model.embed_tokens", "token_embd_norm": "model.embedding_norm", "output": "lm_head"}
EPSILON = ("attention.layer_norm_rms_epsilon", "norm_eps")
NAMES = {
    **dict(zip(("attn_q", "attn_k", "attn_v"), QKV, strict=True)),
    "attn_output": "self_attn.out_proj",
    **{name: f"{module.removesuffix('norm')}layernorm" for name, module in HEAD_NORMS.items()},
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
    **{f"ffn_{part}": f"feed_forward.w{number}" for part, number in (("gate", 1), ("down", 2), ("up", 3))},
    "attn_norm": "operator_norm",
    "ffn_norm": "ffn_norm",
}
"""The modules of a layer, by what files call them, but for those of `part_of_layer`."""
KEYS = frozenset({"shortconv.l_cache"})


def numbers_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration has of convolutions, and the kind of each layer.

    Raises:
        KeyError, TypeError: a number is left out, or is not possible.
    """
    taps = count(told, "shortconv.l_cache")
    if taps < 2:
        raise TypeError(f"convolutions of {taps} row")
    return {
        "layer_types": ["full_attention" if each else "conv" for each in attends(told)],
        "conv_L_cache": taps,
        "conv_bias": False,
    }


def part_of_layer(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return a convolution's weight by its name within the layer; None for any other tensor. See `PartOfLayer`."""
    if name.split(".", 2)[2] != "shortconv.conv.weight":
        return None
    found = exact_numbers(tensors, name, (config["hidden_size"], config["conv_L_cache"]))
    return {"conv.conv.weight": found[:, None].contiguous()}


FORMS = Forms(part_of_layer, (".conv.conv.weight",))
